//! A hundred kills, spread over every step of the turn: nothing is lost, nothing happens twice, nothing is left.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use carrel_tests::machine::{self, Pod};
use carrel_tests::{Event, Setup, Up, agent, eventually, seed};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use serde_json::json;

const KILLS: usize = 100;
const LEARNERS: [&str; 2] = ["http", "command"];

/// Where a turn is when something is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Accepting,
    Queued,
    Waking,
    Restoring,
    Running,
    Snapshotting,
    Committing,
    Done,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Accepting,
        Self::Queued,
        Self::Waking,
        Self::Restoring,
        Self::Running,
        Self::Snapshotting,
        Self::Committing,
        Self::Done,
    ];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Server,
    Sidecar,
    Shim,
    /// The sidecar's short-lived child that restores or backs up.
    Worker,
}

/// The fewest kills of each.
const OF_EACH: usize = 10;
/// The fewest kills at each step.
const AT_EACH: usize = 3;

/// Every step with every target, again and again, in an order that the lots decide. A worker is there for a moment only,
/// soon after these steps were seen; each counts twice, for not every one is met.
fn schedule(lots: &mut StdRng) -> Vec<(Step, Target)> {
    use Step::{Accepting, Restoring, Running, Snapshotting, Waking};
    let mut all = Vec::new();
    for step in Step::ALL {
        all.push((step, Target::Server));
        // Before a message is accepted nobody else has to do with it.
        if step != Accepting {
            all.extend([Target::Sidecar, Target::Shim].map(|target| (step, target)));
        }
    }
    for step in [Waking, Restoring, Running, Snapshotting] {
        all.extend([(step, Target::Worker); 2]);
    }
    // More than enough: not every kill finds its victim.
    let mut schedule = all.repeat(4 * KILLS / all.len());
    schedule.shuffle(lots);
    schedule
}

struct Course {
    up: Up,
    lots: StdRng,
    /// How many turns each learner has had.
    counts: BTreeMap<&'static str, u64>,
    /// Kills that found their victim, by where the turn was seen to be.
    hits: BTreeMap<(Target, Step), usize>,
    /// Every pod that was seen.
    pods: Vec<Pod>,
}

#[tokio::test]
async fn a_hundred_kills_lose_nothing_and_repeat_nothing() -> anyhow::Result<()> {
    let setup = Setup {
        documents: vec![
            agent::http("by-http", &json!({})),
            agent::command("by-command", &json!({})),
            agent::learner("http", "by-http"),
            agent::learner("command", "by-command"),
        ],
        settings: Some(json!({"fleet": {"startsPerSecond": 1000}})),
        ..Setup::default()
    };
    let Some(up) = Up::start("a hundred kills", setup).await? else {
        return Ok(());
    };
    let mut lots = seed::lots("a hundred kills");
    let schedule = schedule(&mut lots);
    let (counts, hits, pods) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let mut course = Course {
        up,
        lots,
        counts,
        hits,
        pods,
    };
    let began = Instant::now();
    for (round, (step, target)) in schedule.into_iter().enumerate() {
        if course.kills() >= KILLS && course.owed() == 0 {
            break;
        }
        // Lots alone may leave a step out: the last kills, and some more if need be, are for those that had too few.
        let left = KILLS.saturating_sub(course.kills());
        if left <= 2 * course.owed() && course.at(step) >= AT_EACH {
            continue;
        }
        let learner = LEARNERS[round % LEARNERS.len()];
        let told = format!("round {round}: {target:?} at {step:?} of {learner}");
        let at = began.elapsed();
        course
            .round(learner, step, target)
            .await
            .context(told.clone())?;
        let took = began.elapsed().saturating_sub(at);
        if took > Duration::from_secs(5) {
            println!("{told} took {took:?}");
        }
    }
    println!(
        "{} kills in {:?}, by target and step:",
        course.kills(),
        began.elapsed()
    );
    for ((target, step), hits) in &course.hits {
        println!("  {target:?} {step:?}: {hits}");
    }
    ensure!(
        course.kills() >= KILLS,
        "only {} kills found their victim",
        course.kills()
    );
    for target in [
        Target::Server,
        Target::Sidecar,
        Target::Shim,
        Target::Worker,
    ] {
        let hits = course.hits.iter().filter(|((hit, _), _)| *hit == target);
        let hits: usize = hits.map(|(_, hits)| hits).sum();
        ensure!(hits >= OF_EACH, "{target:?} was killed {hits} times only");
    }
    for step in Step::ALL {
        let hits = course.at(step);
        ensure!(hits >= AT_EACH, "at {step:?} there were {hits} kills only");
    }
    course.each_message_had_one_outcome().await?;
    course.nothing_is_left().await
}

impl Course {
    fn kills(&self) -> usize {
        self.hits.values().sum()
    }

    /// Kills at a step.
    fn at(&self, step: Step) -> usize {
        let hits = self.hits.iter().filter(|((_, hit), _)| *hit == step);
        hits.map(|(_, hits)| hits).sum()
    }

    /// Kills that steps have yet to have.
    fn owed(&self) -> usize {
        let owed = Step::ALL.map(|step| AT_EACH.saturating_sub(self.at(step)));
        owed.iter().sum()
    }

    /// One message, one kill, one answer: the next number.
    async fn round(
        &mut self,
        learner: &'static str,
        step: Step,
        target: Target,
    ) -> anyhow::Result<()> {
        if matches!(step, Step::Queued | Step::Waking | Step::Restoring) {
            self.up.api.sleep(learner).await?;
        }
        let count = self.counts.entry(learner).or_default();
        *count += 1;
        let (expected, key) = (count.to_string(), format!("{learner}-{count}"));
        let seen = if step == Step::Accepting {
            self.while_accepted(learner, &key).await?
        } else {
            self.while_under_way(learner, &key, step, target).await?
        };
        if let Some(seen) = seen {
            *self.hits.entry((target, seen)).or_default() += 1;
        }
        let outcome = self.outcome(learner, &key).await?;
        ensure!(
            outcome.name == "done" && outcome.data["reply"]["text"] == expected.as_str(),
            "instead of {expected}: {outcome:?}"
        );
        Ok(())
    }

    async fn while_accepted(&mut self, learner: &str, key: &str) -> anyhow::Result<Option<Step>> {
        let (api, id, sent) = (self.up.api.clone(), learner.to_owned(), key.to_owned());
        let sending = tokio::spawn(async move { api.post(&id, "count", &sent).await });
        tokio::time::sleep(Duration::from_micros(self.lots.random_range(0..6000))).await;
        self.kill_server().await?;
        // Whether it was accepted or not: the client says it again.
        let _ = sending.await?;
        Ok(Some(Step::Accepting))
    }

    async fn while_under_way(
        &mut self,
        learner: &str,
        key: &str,
        step: Step,
        target: Target,
    ) -> anyhow::Result<Option<Step>> {
        let mut stream = self.up.api.post_and_follow(learner, "count", key).await?;
        let mut seen = Step::Queued;
        while seen < step.min(Step::Done)
            && !(step == Step::Committing && seen == Step::Snapshotting)
        {
            let event = stream
                .next()
                .await?
                .context("the turn's stream ended early")?;
            seen = after(seen, &event);
        }
        let (least, most) = match step {
            Step::Queued => (0, 2),
            Step::Committing => (5, 60),
            _ => (0, 8),
        };
        let strike = Instant::now() + Duration::from_millis(self.lots.random_range(least..=most));
        while let Ok(event) = tokio::time::timeout_at(strike.into(), stream.next()).await {
            let Some(event) = event? else { break };
            seen = after(seen, &event);
        }
        tokio::time::sleep_until(strike.into()).await;
        if step == Step::Committing && seen == Step::Snapshotting {
            seen = Step::Committing;
        }
        self.pods.extend(machine::pods(self.up.pid()));
        if target == Target::Server {
            self.kill_server().await?;
            return Ok(Some(seen));
        }
        let victim = self.victim(learner, target).await?;
        Ok(victim.is_some_and(machine::kill).then_some(seen))
    }

    async fn kill_server(&mut self) -> anyhow::Result<()> {
        self.up.kill()?;
        self.up.again().await
    }

    /// The learner's sidecar, shim or worker, as soon as there is one; `None` if none comes to be.
    async fn victim(&self, learner: &str, target: Target) -> anyhow::Result<Option<u32>> {
        let (api, server) = (&self.up.api, self.up.pid());
        let look = || async move {
            let name = api.learner(learner).await?["pod"]
                .as_str()
                .map(str::to_owned);
            let pods = machine::pods(server);
            let pod = pods
                .into_iter()
                .find(|pod| Some(&pod.name) == name.as_ref());
            Ok(pod.and_then(|pod| match target {
                Target::Shim => pod.shim,
                Target::Worker => machine::snapshot_worker(pod.sidecar),
                Target::Sidecar | Target::Server => Some(pod.sidecar),
            }))
        };
        Ok(eventually("a victim", Duration::from_millis(500), look)
            .await
            .ok())
    }

    async fn outcome(&self, learner: &str, key: &str) -> anyhow::Result<Event> {
        let mut stream = self.up.api.post_and_follow(learner, "count", key).await?;
        let mut last = None;
        while let Some(event) = stream.next().await? {
            last = Some(event);
        }
        last.filter(Event::is_outcome)
            .context("the turn's stream ended without its outcome")
    }

    async fn each_message_had_one_outcome(&self) -> anyhow::Result<()> {
        for (learner, count) in &self.counts {
            let log = self.up.api.log(learner).await?;
            let of = |kind: &str| log.iter().filter(|e| e["type"] == kind).collect::<Vec<_>>();
            let (queued, done) = (of("queued"), of("done"));
            ensure!(of("failed").is_empty(), "{learner}: {:?}", of("failed"));
            ensure!(
                queued.len() as u64 == *count,
                "{learner}: {} messages",
                queued.len()
            );
            let turns = |events: &[&serde_json::Value]| -> Vec<String> {
                events
                    .iter()
                    .map(|event| event["turn_id"].to_string())
                    .collect()
            };
            ensure!(
                turns(&queued) == turns(&done),
                "{learner}: not each message was done once, in order"
            );
            let replies: Vec<_> = done.iter().map(|event| &event["reply"]["text"]).collect();
            let numbers: Vec<_> = (1..=*count).map(|n| json!(n.to_string())).collect();
            ensure!(
                replies == numbers.iter().collect::<Vec<_>>(),
                "{learner} answered {replies:?}"
            );
            let restarted = of("restarted").len();
            println!("{learner}: {count} messages, {count} answers, {restarted} attempts died");
        }
        Ok(())
    }

    /// Neither after a SIGKILL and a new start nor after an orderly end.
    async fn nothing_is_left(&mut self) -> anyhow::Result<()> {
        let data = self.up.data();
        for learner in LEARNERS {
            self.up.api.reply(learner, "count").await?;
        }
        let awake = machine::pods(self.up.pid());
        ensure!(awake.len() == 2, "two learners are awake: {awake:?}");
        for pod in &awake {
            let groups = machine::control_groups(std::slice::from_ref(pod));
            ensure!(!groups.is_empty(), "{pod:?} has control groups");
        }
        let seen = machine::left_of(&data, &awake);
        for kind in ["process", "group", "folder"] {
            ensure!(
                seen.iter().any(|line| line.starts_with(kind)),
                "no {kind} is seen: {seen:?}"
            );
        }
        self.pods.extend(awake);
        self.up.kill()?;
        let pods = &self.pods;
        eventually(
            "sidecars and shims end with their server",
            Duration::from_secs(5),
            || async {
                let living = pods
                    .iter()
                    .flat_map(|pod| std::iter::once(pod.sidecar).chain(pod.shim));
                Ok((living.filter(|pid| machine::lives(*pid)).count() == 0).then_some(()))
            },
        )
        .await?;
        self.up.again().await?;
        let left = machine::left_of(&data, &self.pods);
        ensure!(left.is_empty(), "after a kill and a start: {left:#?}");
        self.up.api.reply("http", "count").await?;
        self.pods.extend(machine::pods(self.up.pid()));
        let status = self.up.terminate().await?;
        ensure!(status.success(), "{status}");
        let left = machine::left_of(&data, &self.pods);
        ensure!(left.is_empty(), "after an orderly end: {left:#?}");
        println!("nothing is left of {} pods", self.pods.len());
        Ok(())
    }
}

fn after(before: Step, event: &Event) -> Step {
    match (event.name.as_str(), event.text("state")) {
        ("done" | "error", _) => Step::Done,
        ("state", "queued") => Step::Queued,
        ("state", "waking") => Step::Waking,
        ("state", "restoring") => Step::Restoring,
        ("state", "running") => Step::Running,
        ("state", "snapshotting") => Step::Snapshotting,
        _ => before,
    }
}
