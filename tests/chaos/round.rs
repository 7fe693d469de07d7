//! One seed, from an empty database to the audit.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use carrel_tests::eventually;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use crate::audit::{self, Evidence, Findings, Refused, Rule};
use crate::clients::{self, Talk};
use crate::faults::{self, Done};
use crate::schedule::Schedule;
use crate::school::{LEARNERS, REPLACED, School};
use crate::stale::{self, Stale};

/// Everything accepted has its outcome so long after all is healed.
const RESTS_WITHIN: Duration = Duration::from_secs(100);

/// What a round is like.
pub(crate) struct Plan {
    /// The time for faults.
    pub(crate) lasts: Duration,
    /// How many it has besides those that each has.
    pub(crate) faults: usize,
    /// If not the one that was built.
    pub(crate) executable: Option<PathBuf>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            lasts: Duration::from_secs(25),
            faults: 14,
            executable: None,
        }
    }
}

/// Rounds share the database's server, which they restart.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What came of a round.
pub(crate) struct Judged {
    pub(crate) findings: Findings,
    /// What came from who was replaced, and was refused.
    pub(crate) refused: Refused,
    /// What could not be brought about for that.
    pub(crate) missing: Vec<String>,
    /// The kinds of the faults that met somebody.
    pub(crate) met: BTreeSet<String>,
}

/// What the auditor found. `None` when the machine lacks what a round needs.
///
/// # Errors
/// When it could not be judged.
pub(crate) async fn round(seed: u64, plan: Plan) -> anyhow::Result<Option<Judged>> {
    let _alone = ONE.lock().await;
    let began = Instant::now();
    println!("seed {seed} (repeat with: cargo xtask chaos --seed {seed})");
    let mut lots = StdRng::seed_from_u64(seed);
    let schedule = Schedule::draw(&mut lots, plan.lasts, plan.faults);
    let is_whole = plan.executable.is_none();
    let Some(school) = School::open("chaos", plan.executable).await? else {
        return Ok(None);
    };
    println!("  everything runs after {:?}", began.elapsed());
    let course = async {
        let mut talks: Vec<Talk> = LEARNERS.iter().map(|(name, _)| Talk::of(name)).collect();
        let (done, stale, healed) = disturb(&school, &schedule, &mut talks, &mut lots).await;
        let rested = began.elapsed();
        talks.extend(REPLACED.map(Talk::of));
        let evidence = Evidence {
            talks: &talks,
            stale: &stale,
            excused: &done.excused,
            healed,
        };
        let findings = judge(&school, &evidence).await?;
        let sum = |of: fn(&Talk) -> usize| talks.iter().map(of).sum::<usize>();
        println!(
            "  {} of {} faults met somebody, {} pieces disturbed, {} messages ({} repeats), {} streams, {} calls refused by \
             budgets; at rest after {rested:?}, judged after {:?}",
            done.met,
            schedule.faults.len(),
            school.disturbed(),
            sum(|talk| talk.sent.len()),
            sum(|talk| talk.repeated),
            sum(|talk| talk.streams),
            sum(Talk::refused),
            began.elapsed()
        );
        let heard: String = talks.iter().map(Talk::report).collect();
        let judged = Judged {
            findings,
            refused: audit::refused(&stale),
            missing: stale.missing,
            met: done.kinds,
        };
        anyhow::Ok((judged, heard))
    };
    let judged = tokio::select! {
        judged = course => judged,
        () = school.supervise() => unreachable!("it does not end"),
    };
    let is_well = judged
        .as_ref()
        .is_ok_and(|(judged, _)| judged.findings.0.is_empty());
    if is_whole && !is_well {
        let heard = judged.as_ref().map_or("", |(_, heard)| heard);
        let kept = school.keep_evidence(&seed.to_string(), heard)?;
        println!("  evidence: {}", kept.display());
    }
    let (judged, _) = judged?;
    for broken in &judged.findings.0 {
        println!("  {broken}");
    }
    Ok(Some(judged))
}

/// Talks and disturbs, heals, and waits for everything to come to rest.
async fn disturb(
    school: &School,
    schedule: &Schedule,
    talks: &mut [Talk],
    lots: &mut StdRng,
) -> (Done, Stale, Instant) {
    let lots: Vec<StdRng> = talks.iter().map(|_| StdRng::from_rng(lots)).collect();
    let (stop, give_up) = (CancellationToken::new(), CancellationToken::new());
    let each = talks.iter_mut().zip(lots);
    let talking = each.map(|(talk, lots)| clients::talk(school, talk, lots, &stop, &give_up));
    let talking = async {
        futures::future::join_all(talking).await;
        give_up.cancel();
    };
    let disturbing = async {
        let done = faults::perform(school, schedule).await;
        school.clear();
        let healed = Instant::now();
        let stale = stale::all(school).await;
        println!("  those who were replaced took {:?}", healed.elapsed());
        stop.cancel();
        let rests = tokio::time::timeout(RESTS_WITHIN, give_up.cancelled());
        if rests.await.is_err() {
            give_up.cancel();
        }
        (done, stale, healed)
    };
    tokio::join!(talking, disturbing).1
}

async fn judge(school: &School, evidence: &Evidence<'_>) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    // No client waits for the messages of those who were replaced.
    let open = "SELECT learner, turn_id FROM turn WHERE state IN ('queued', 'running')";
    let none = || async { Ok(school.rows(open).is_empty().then_some(())) };
    if let Err(error) = eventually("no turn is open", RESTS_WITHIN, none).await {
        findings.add(Rule::Outcome, format!("{error}: {:?}", school.rows(open)));
    }
    for talk in evidence.talks {
        for open in talk.open() {
            let what = format!(
                "{}: turn {} ('{}') was not told an outcome within {RESTS_WITHIN:?}",
                talk.learner, open.turn, open.text
            );
            findings.add(Rule::Outcome, what);
        }
    }
    if let Err(error) = school.all_ready().await {
        findings.add(Rule::Running, format!("{error:#}"));
    }
    let found = audit::audit(school, evidence).await?;
    findings.0.extend(found.0);
    Ok(findings)
}
