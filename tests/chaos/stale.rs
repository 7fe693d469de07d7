//! Who was replaced and does not know it: a commit and a model call that arrive behind the fence, an incarnation that asks on
//! with its token, and a gateway that wakes up to a turn which another has taken. Each must be refused, and seen to be.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use carrel_testkit::link::Weather;
use carrel_tests::eventually;
use carrel_tests::machine::{self, Pod};
use carrel_tests::up::signal;
use reqwest::{Client, Method};
use rustix::process::Signal;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::school::{REPLACED, School};

const HELD_WITHIN: Duration = Duration::from_secs(30);
const ANSWERED_WITHIN: Duration = Duration::from_secs(40);
/// A lease lasts 6 s, and its turn is found within 2 more.
const TAKEN_WITHIN: Duration = Duration::from_secs(20);
const LEASE_LOST: &str = "the turn is not ours any more";
/// Outlasts a lease by far, in pieces of 20 ms.
const LONG: &str = "slow 1500";
/// By then the gateway that woke up has let that turn go, or run it to its end.
const OVER_WITHIN: Duration = Duration::from_secs(90);

/// What arrives late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Commit,
    Call,
}

impl What {
    pub(crate) const ALL: [Self; 2] = [Self::Commit, Self::Call];
}

/// A turn that was sent for this, with its message.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    pub(crate) learner: &'static str,
    pub(crate) id: String,
    pub(crate) text: String,
}

/// What an incarnation sent before the fence rose above its epoch, and what arrived after.
#[derive(Debug, Clone)]
pub(crate) struct Late {
    pub(crate) what: What,
    pub(crate) turn: Turn,
    pub(crate) epoch: u64,
    /// The fence when it arrived.
    pub(crate) fence: u64,
    /// The answer, from its first line on.
    pub(crate) answer: String,
}

/// What a process answered to an incarnation that was replaced.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Which process, and for what.
    pub(crate) what: String,
    /// The status, and the body.
    pub(crate) answer: String,
}

/// A gateway that was paused until another had taken its turn, and woke up.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) turn: Turn,
    pub(crate) gateway: &'static str,
    /// From when to when it was paused.
    pub(crate) paused: Range<Instant>,
    /// Whether it said that it lets the turn go; it ran it to its end otherwise.
    pub(crate) is_let_go: bool,
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stale {
    /// What each of the learners kept before.
    pub(crate) kept: Vec<Turn>,
    pub(crate) late: Vec<Late>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) lease: Option<Lease>,
    /// What could not be brought about.
    pub(crate) missing: Vec<String>,
}

impl Stale {
    /// The turns that were sent for it.
    pub(crate) fn turns(&self) -> impl Iterator<Item = &Turn> {
        let late = self.late.iter().map(|late| &late.turn);
        let lease = self.lease.iter().map(|lease| &lease.turn);
        self.kept.iter().chain(late).chain(lease)
    }
}

/// All at once, each with a learner of its own.
pub(crate) async fn all(school: &School) -> Stale {
    let mut stale = Stale::default();
    for kept in futures::future::join_all(REPLACED.map(|learner| keep(school, learner))).await {
        match kept {
            Ok(turn) => stale.kept.push(turn),
            Err(error) => stale.missing.push(format!("{error:#}")),
        }
    }
    let [one, another, third] = REPLACED;
    let (commit, call, lease) = tokio::join!(
        late(school, What::Commit, one),
        late(school, What::Call, another),
        lost_lease(school, third),
    );
    for late in [commit, call] {
        match late {
            Ok((late, asked)) => {
                stale.late.push(late);
                stale.asked.extend(asked);
            }
            Err(error) => stale.missing.push(format!("{error:#}")),
        }
    }
    match lease {
        Ok(lease) => stale.lease = Some(lease),
        Err(error) => stale.missing.push(format!("{error:#}")),
    }
    stale
}

async fn send(school: &School, learner: &'static str, text: &str) -> anyhow::Result<Turn> {
    let key = format!("stale {text}");
    let mut gateway = 0;
    let accepted = eventually("a message is accepted", HELD_WITHIN, || {
        gateway += 1;
        let (api, key) = (school.client(gateway), key.clone());
        async move { Ok(api?.post(learner, text, &key).await.ok()) }
    });
    Ok(Turn {
        learner,
        id: accepted.await?.turn,
        text: text.to_owned(),
    })
}

/// Leaves something in a workspace that whoever comes next must find.
async fn keep(school: &School, learner: &'static str) -> anyhow::Result<Turn> {
    let turn = send(school, learner, "keep 300").await?;
    let done = format!(
        "SELECT 1 FROM turn WHERE turn_id = '{}' AND state = 'done'",
        turn.id
    );
    let what = format!("{learner} keeps something");
    eventually(&what, HELD_WITHIN, || async {
        Ok((!school.ask(&done).await.is_empty()).then_some(()))
    })
    .await?;
    Ok(turn)
}

/// A commit or a model call is held on its way, its incarnation dies, the next one raises the fence, and then it arrives. The
/// token of a commit is then shown to everybody.
async fn late(
    school: &School,
    what: What,
    learner: &'static str,
) -> anyhow::Result<(Late, Vec<Asked>)> {
    let (link, held, text) = match what {
        What::Commit => (
            "all to vaults",
            format!("PUT /v1/learners/{learner}/head"),
            "count".to_owned(),
        ),
        What::Call => {
            let text = format!("pay {learner} late");
            ("all to routers", text.clone(), text)
        }
    };
    let link = school.link(link);
    let place = link.held().len();
    link.weather(Weather::Held(held));
    let result = async {
        let turn = send(school, learner, &text).await?;
        let asked = eventually("it is held", HELD_WITHIN, || async {
            Ok(link.held().get(place).map(|held| held.asked.clone()))
        })
        .await?;
        let (epoch, pod) = eventually("its pod is seen", HELD_WITHIN, || async {
            let document = school.client(0)?.learner(learner).await?;
            let pod: Option<Pod> = school
                .pods()
                .into_iter()
                .find(|pod| document["pod"] == pod.name.as_str());
            Ok(pod
                .zip(document["epoch"].as_u64())
                .map(|(pod, epoch)| (epoch, pod)))
        })
        .await?;
        machine::kill(pod.sidecar);
        let raised = "the next incarnation raises the fence";
        let fence = eventually(raised, HELD_WITHIN, || async {
            let rows = school
                .ask(&format!("SELECT fence FROM learner WHERE id = '{learner}'"))
                .await;
            let fence: Option<u64> = rows.first().and_then(|row| row[0].parse().ok());
            Ok(fence.filter(|fence| *fence > epoch))
        })
        .await?;
        link.weather(Weather::Clear);
        let answer = eventually("what came late is answered", ANSWERED_WITHIN, || async {
            let answer = link.held().get(place).map(|held| held.answer.clone());
            // It is JSON.
            Ok(answer.filter(|answer| answer.contains('}')))
        })
        .await?;
        let asked = match what {
            What::Commit => ask_on(school, learner, &token(&asked)?).await?,
            What::Call => Vec::new(),
        };
        let late = Late {
            what,
            turn,
            epoch,
            fence,
            answer,
        };
        anyhow::Ok((late, asked))
    }
    .await;
    link.weather(Weather::Clear);
    result.with_context(|| format!("a late {what:?} of {learner}"))
}

/// The token that a request carries.
fn token(request: &str) -> anyhow::Result<String> {
    let mut fields = request.lines().filter_map(|line| line.split_once(": "));
    let field = fields.find(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    let token = field.and_then(|(_, value)| value.trim().strip_prefix("Bearer "));
    Ok(token.context("a pod shows a token")?.to_owned())
}

/// An incarnation that was replaced reads its head, its key and its snapshots, writes to them, and asks the model, at each vault
/// and router.
async fn ask_on(school: &School, learner: &'static str, token: &str) -> anyhow::Result<Vec<Asked>> {
    const PIECE: &[u8] = b"of an agent that should be dead";
    let piece = hex::encode(Sha256::digest(PIECE));
    let of_vaults = [
        (
            Method::GET,
            format!("/v1/learners/{learner}/head"),
            &b""[..],
        ),
        (Method::GET, format!("/v1/learners/{learner}/key"), b""),
        (Method::GET, format!("/restic/{learner}/config"), b""),
        (
            Method::POST,
            format!("/restic/{learner}/data/{piece}"),
            PIECE,
        ),
    ];
    let message = json!({"model": "default", "max_tokens": 100, "messages": [{"role": "user",
        "content": format!("pay {learner} stale")}]});
    let message = message.to_string();
    let of_routers = [(Method::POST, "/v1/messages".to_owned(), message.as_bytes())];
    let mut asked = Vec::new();
    for (process, questions) in [
        ("vault-1", &of_vaults[..]),
        ("vault-2", &of_vaults),
        ("router-1", &of_routers),
        ("router-2", &of_routers),
    ] {
        for question in questions {
            asked.push(ask(school, process, question, token).await?);
        }
    }
    Ok(asked)
}

async fn ask(
    school: &School,
    process: &str,
    (method, path, body): &(Method, String, &[u8]),
    token: &str,
) -> anyhow::Result<Asked> {
    let url = format!("http://{}{path}", school.address(process));
    let client = Client::builder().no_proxy().build()?;
    let what = format!("{process}: {method} {path}");
    let answer = eventually(&what, HELD_WITHIN, || {
        let request = client
            .request(method.clone(), &url)
            .bearer_auth(token)
            .header("content-type", "application/json")
            .body(body.to_vec());
        async move {
            // It may be on its way back.
            let Ok(answer) = request.send().await else {
                return Ok(None);
            };
            let status = answer.status();
            if status.is_server_error() {
                return Ok(None);
            }
            Ok(Some(format!("{status} {}", answer.text().await?)))
        }
    });
    Ok(Asked {
        answer: answer.await?,
        what,
    })
}

/// The gateway that owns a long turn is paused until another owns it, and goes on.
async fn lost_lease(school: &School, learner: &'static str) -> anyhow::Result<Lease> {
    let turn = send(school, learner, LONG).await?;
    let owner = || async {
        let rows = school
            .ask(&format!(
                "SELECT p.address FROM turn t JOIN process p ON p.id = t.lease_owner \
                 WHERE t.turn_id = '{}' AND t.state = 'running'",
                turn.id
            ))
            .await;
        let address = rows.first().and_then(|row| row.first().cloned());
        Ok(address.and_then(|address| school.gateway_at(&address)))
    };
    let gateway = eventually("the turn has an owner", HELD_WITHIN, owner).await?;
    let pid = school.pid(gateway).context("its owner runs")?;
    let stopped = Instant::now();
    signal(pid, Signal::STOP)?;
    let taken = eventually("another takes the turn", TAKEN_WITHIN, || async {
        Ok(owner().await?.filter(|now| *now != gateway))
    })
    .await;
    signal(pid, Signal::CONT)?;
    let paused = stopped..Instant::now();
    taken?;
    let open = format!(
        "SELECT state IN ('queued', 'running') FROM turn WHERE turn_id = '{}'",
        turn.id
    );
    let over = "it lets the turn go, or runs it to its end";
    let is_let_go = eventually(over, OVER_WITHIN, || async {
        let has_ended = school.ask(&open).await == [["f"]];
        let log = school.log(gateway)?;
        let of_turn = |line: &str| line.contains(LEASE_LOST) && line.contains(&turn.id);
        let is_let_go = log.lines().any(of_turn);
        Ok((is_let_go || has_ended).then_some(is_let_go))
    })
    .await?;
    Ok(Lease {
        gateway,
        paused,
        is_let_go,
        turn: turn.clone(),
    })
}
