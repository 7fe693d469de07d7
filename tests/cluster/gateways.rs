//! Gateways on a real API server with fake nodes: a message wakes once, and what a gateway has not seen does no harm.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use carrel_tests::cluster::school::{CONTROLLER, Controller, NAMESPACE, SOON, School};
use carrel_tests::cluster::{Access, Fate, Mark, Proxy, counted, tally};
use carrel_tests::roles::{How, Member};
use carrel_tests::{Api, Roles, eventually};
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use reqwest::Method;
use serde_json::{Value, json};

/// Whose writes are the gateways'.
pub(crate) const GATEWAY: &str = "carrel-gateway";
/// What every turn here is answered.
const REPLY: &str = "It is done.";
/// Another gateway takes over what one did that is gone.
const WITHIN_SECONDS: Duration = Duration::from_secs(30);

/// A school whose gateways share a database.
pub(crate) struct Town {
    pub(crate) school: School,
    roles: Roles,
    access: Access,
}

impl Town {
    pub(crate) async fn open(test: &str) -> anyhow::Result<Option<Self>> {
        let settings = json!({
            "gateway": {"fleet": "Kubernetes"},
            "kubernetes": {"namespace": NAMESPACE},
        });
        let Some(school) = School::open(test, 3, &Value::Null).await? else {
            return Ok(None);
        };
        let Some(roles) = Roles::prepare_with(test, &settings, &[])? else {
            return Ok(None);
        };
        let class = json!({"warmPool": {"size": 0}, "isolation": {"userNamespace": false}});
        school.class("free", &class).await?;
        let access = school.plane.user(GATEWAY, Some("system:masters"))?;
        Ok(Some(Self {
            school,
            roles,
            access,
        }))
    }

    pub(crate) async fn gateway(&self) -> anyhow::Result<(Member, Api)> {
        self.gateway_by(&self.access.file).await
    }

    pub(crate) async fn gateway_by(&self, kubeconfig: &Path) -> anyhow::Result<(Member, Api)> {
        let how = How {
            variables: vec![("KUBECONFIG", kubeconfig.display().to_string())],
            ..How::default()
        };
        let gateway = self.roles.start_as("gateway", &how).await?;
        let health = gateway.text("health_url").to_owned();
        eventually("the gateway has seen everything", SOON, || async {
            let said = reqwest::get(format!("{health}/readyz")).await?;
            Ok(said.status().is_success().then_some(()))
        })
        .await?;
        let api = self.roles.api(&gateway)?;
        Ok((gateway, api))
    }

    pub(crate) async fn proxy(&self) -> anyhow::Result<Proxy> {
        Proxy::start(&self.access).await
    }

    /// A controller, and a gateway on whose way to the API server the test stands; ada and bob rest.
    async fn proxied(&self) -> anyhow::Result<(Controller, Proxy, Member, Api)> {
        let controller = self.school.controller().await?;
        let proxy = self.proxy().await?;
        let (gateway, api) = self.gateway_by(&proxy.kubeconfig()).await?;
        for name in ["ada", "bob"] {
            self.school.resting(name, "free").await?;
        }
        Ok((controller, proxy, gateway, api))
    }

    /// The uid of the pod that got this message's turn.
    pub(crate) async fn delivered(&self, text: &str) -> anyhow::Result<String> {
        eventually("the turn has come", SOON, || async {
            let turns = self.school.stand_in.turns();
            let mut ours = turns.into_iter().filter(|(_, said)| said == text);
            Ok(ours.next().map(|(uid, _)| uid))
        })
        .await
    }

    /// A whole turn of ada's: it comes to her pod, whose uid this is, is committed as a vault does, but for the head, and her sidecar rests.
    async fn whole_turn(&self, by: &Api, text: &str) -> anyhow::Result<String> {
        const COMMIT: &str = "WITH \
            t AS (SELECT place, turn_id FROM turn WHERE learner = 'ada' AND state = 'running'), \
            l AS (UPDATE learner SET event_version = event_version + 1 WHERE id = 'ada' RETURNING event_version AS version), \
            e AS (INSERT INTO event (learner, version, time, type, body) \
                SELECT 'ada', version, extract(epoch FROM now()) * 1000000000, 'done', json_build_object( \
                    'type', 'done', 'turn_id', turn_id, 'stopped', false, 'reply', $reply$REPLY$reply$::json, \
                    'usage', $usage$USAGE$usage$::json, 'snapshot_id', NULL, 'generation', 1) FROM l, t) \
            UPDATE turn SET state = 'done', reply = $reply$REPLY$reply$::json, version = l.version, \
                lease_owner = NULL, lease_until = 0 FROM l, t WHERE turn.place = t.place RETURNING turn.version";
        let reply = json!({"text": REPLY, "files": []});
        let usage = json!({"input_tokens": 0, "output_tokens": 0, "cost_nano_usd": 0});
        let runs = async {
            let pod = self.delivered(text).await?;
            let commit = COMMIT
                .replace("REPLY", &reply.to_string())
                .replace("USAGE", &usage.to_string());
            let version = self.roles.server.psql(&self.roles.database, &commit);
            let version: u64 = version.trim().parse().context("a turn runs")?;
            let committed = json!({
                "type": "committed", "version": version, "generation": 1, "snapshot_id": "5a".repeat(32),
                "stopped": false, "reply": reply, "usage": usage, "timing": {"agent": 1, "snapshot": 1},
            });
            self.school.stand_in.ends_turn(&pod, committed);
            anyhow::Ok(pod)
        };
        let both = async { tokio::try_join!(by.reply("ada", text), runs) };
        let (replied, pod) = tokio::time::timeout(SOON, both).await??;
        assert_eq!(replied, REPLY);
        Ok(pod)
    }

    /// What was written since but for leases, once so long has passed as a leader needs to renew twice.
    async fn wrote(&self, since: Mark, user: &str) -> anyhow::Result<BTreeMap<String, usize>> {
        eventually("time passes", SOON, || async {
            let writes = self.school.plane.writes_since(since).await?;
            let renewed = tally(&writes, CONTROLLER).get("update leases") > Some(&1);
            let mut ours = tally(&writes, user);
            ours.retain(|what, _| !what.ends_with(" leases"));
            Ok(renewed.then_some(ours))
        })
        .await
    }

    /// Whether the store has a row of this learner.
    fn has_row(&self, learner: &str) -> bool {
        let rows = format!("SELECT 1 FROM learner WHERE id = '{learner}'");
        let server = self.roles.server;
        !server.psql(&self.roles.database, &rows).is_empty()
    }
}

/// What a gateway says that it has written.
async fn said(gateway: &Member) -> anyhow::Result<BTreeMap<String, usize>> {
    let metrics = format!("{}/metrics", gateway.text("health_url"));
    Ok(counted(&reqwest::get(metrics).await?.text().await?))
}

fn is_learners_watch(asked: &carrel_tests::cluster::Asked) -> bool {
    asked.is_watch && asked.path.ends_with("/learners")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_and_two_gateways_cost_one_patch_and_whole_turns_none() -> anyhow::Result<()> {
    let test = "one_message_and_two_gateways_cost_one_patch_and_whole_turns_none";
    let Some(town) = Town::open(test).await? else {
        return Ok(());
    };
    let school = &town.school;
    let controller = school.controller().await?;
    let (first, api) = town.gateway().await?;
    let (second, other) = town.gateway().await?;
    school.resting("ada", "free").await?;
    let mark = school.plane.mark().await?;
    let pod = town.whole_turn(&api, "wakes").await?;
    let awake = school.status("ada", "awake", |status| status.is_ready(1));
    assert_eq!(awake.await?.0["podUid"], pod);
    // Others look on meanwhile.
    let (seen, document) = other
        .call(Method::GET, "/admin/v1/learners/ada", None)
        .await?;
    assert_eq!((seen, &document["epoch"]), (StatusCode::OK, &json!(1)));
    let (status, _) = other
        .call(Method::POST, "/v1/learners/ada/wake", None)
        .await?;
    assert_eq!(status, StatusCode::ACCEPTED);
    let one = BTreeMap::from([("patch learners".to_owned(), 1)]);
    assert_eq!(town.wrote(mark, GATEWAY).await?, one);
    let both = [said(&first).await?, said(&second).await?];
    let both: Vec<_> = both.into_iter().flatten().collect();
    assert_eq!(
        both,
        one.into_iter().collect::<Vec<_>>(),
        "by their metrics"
    );

    let mark = school.plane.mark().await?;
    for (by, text) in [(&api, "again"), (&other, "and again")] {
        assert_eq!(town.whole_turn(by, text).await?, pod);
    }
    for user in [GATEWAY, CONTROLLER] {
        let wrote = town.wrote(mark, user).await?;
        assert!(wrote.is_empty(), "{user}: {wrote:?}");
    }
    let turns = school.stand_in.turns();
    assert_eq!(turns.len(), 3, "each was delivered once: {turns:?}");
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_gateway_that_takes_objects_over_is_gone_another_does_it_within_seconds()
-> anyhow::Result<()> {
    let test = "when_the_gateway_that_takes_objects_over_is_gone_another_does_it_within_seconds";
    let Some(town) = Town::open(test).await? else {
        return Ok(());
    };
    let row = |name| {
        let town = &town;
        eventually("a row follows the object", SOON, move || async move {
            Ok(town.has_row(name).then_some(()))
        })
    };
    let (mut first, _) = town.gateway().await?;
    town.school.learner("ada", "free").await?;
    row("ada").await?;
    // It looks on: the first goes on.
    let (_second, _) = town.gateway().await?;
    town.school.learner("bob", "free").await?;
    row("bob").await?;
    let gone = Instant::now();
    first.kill()?;
    town.school.learner("cyd", "free").await?;
    row("cyd").await?;
    let took = gone.elapsed();
    println!("{test}: after {took:?}");
    assert!(took < WITHIN_SECONDS, "{took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_one_whom_the_watch_has_not_shown_yet_is_taken() -> anyhow::Result<()> {
    let test = "a_message_for_one_whom_the_watch_has_not_shown_yet_is_taken";
    let Some(town) = Town::open(test).await? else {
        return Ok(());
    };
    let controller = town.school.controller().await?;
    let proxy = town.proxy().await?;
    // The list is shown, and nothing after it.
    let held = proxy.stop(is_learners_watch);
    let (_gateway, api) = town.gateway_by(&proxy.kubeconfig()).await?;
    let (status, _) = api.send("ada", "too early", "0").await?;
    assert_eq!(status, StatusCode::NOT_FOUND);
    town.school.learner("bob", "free").await?;
    api.post("bob", "hello", "1").await?;
    let token = json!({"ttlSeconds": 60});
    town.school.learner("cyd", "free").await?;
    api.admin(Method::POST, "learners/cyd/tokens", Some(token))
        .await?;
    drop(held);
    town.delivered("hello").await?;
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_another_pod_has_the_address_the_token_decides() -> anyhow::Result<()> {
    let test = "where_another_pod_has_the_address_the_token_decides";
    let Some(town) = Town::open(test).await? else {
        return Ok(());
    };
    let school = &town.school;
    let controller = school.controller().await?;
    let (_gateway, api) = town.gateway().await?;
    let mut up = Vec::new();
    for name in ["ada", "bob"] {
        school.learner(name, "free").await?;
        school.wake(name, 0).await?;
        let status = school.status(name, "awake", |status| status.is_ready(1));
        up.push(status.await?);
    }
    let (ada, bob) = (&up[0], &up[1]);
    // Nobody says that ada's pod is gone, and bob's has the address that it had.
    controller.kill()?;
    let text = |status: &Value, key: &str| status[key].as_str().unwrap_or_default().to_owned();
    let namespace = text(&ada.0, "podNamespace");
    let pods = kube::Api::<Pod>::namespaced(school.plane.client(), &namespace);
    pods.delete(ada.pod(), &DeleteParams::default().grace_period(0))
        .await?;
    let moved = json!({"status": {"podAddress": bob.0["podAddress"]}});
    school
        .learners()
        .patch_status("ada", &PatchParams::default(), &Patch::Merge(moved))
        .await?;
    api.post("ada", "for ada", "1").await?;
    let bobs = text(&bob.0, "podUid");
    eventually("bob's pod refuses what is ada's", SOON, || async {
        let refused = school.stand_in.misdirected();
        Ok(refused
            .contains(&(bobs.clone(), "ada".to_owned()))
            .then_some(()))
    })
    .await?;
    school.free_lease().await?;
    let controller = school.controller().await?;
    let pod = town.delivered("for ada").await?;
    let again = school.status("ada", "awake again", |status| status.is_ready(2));
    assert_eq!(again.await?.0["podUid"], pod);
    assert_ne!(pod, bobs);
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_has_not_seen_while_it_was_blind_it_sees_afterwards() -> anyhow::Result<()> {
    let test = "what_a_gateway_has_not_seen_while_it_was_blind_it_sees_afterwards";
    let Some(town) = Town::open(test).await? else {
        return Ok(());
    };
    let (controller, proxy, _gateway, api) = town.proxied().await?;
    for (name, fate) in [
        ("ada", Fate::Refused(StatusCode::SERVICE_UNAVAILABLE)),
        ("bob", Fate::Expired),
    ] {
        let blind = proxy.rule(|asked| asked.is_watch, fate);
        let lists = proxy.rule(
            |asked| asked.is(&Method::GET, "/learners"),
            Fate::Refused(StatusCode::SERVICE_UNAVAILABLE),
        );
        proxy.cut_watches();
        // It is taken, and the wish is written; that she is awake nobody here sees.
        api.post(name, name, name).await?;
        let awake = town
            .school
            .status(name, "awake", |status| status.is_ready(1));
        let awake = awake.await?;
        let turns = town.school.stand_in.turns();
        assert!(!turns.iter().any(|(_, text)| text == name), "{turns:?}");
        drop((blind, lists));
        assert_eq!(awake.0["podUid"], town.delivered(name).await?);
    }
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_gives_up_a_call_that_is_not_answered_and_makes_it_again() -> anyhow::Result<()> {
    let test = "a_gateway_gives_up_a_call_that_is_not_answered_and_makes_it_again";
    let Some(town) = Town::open(test).await? else {
        return Ok(());
    };
    let (controller, proxy, _gateway, api) = town.proxied().await?;
    let mut wakes = proxy.stop(|asked| asked.is(&Method::PATCH, "/learners/ada"));
    let mut looks = proxy.stop(|asked| asked.is(&Method::GET, "/learners/nobody"));
    api.post("ada", "waits", "1").await?;
    let wake = wakes.next().await;
    drop(wakes);
    // Whoever asks for what nobody can say hears so, and others are served meanwhile.
    let stranger = tokio::time::timeout(SOON, api.send("nobody", "who is not known", "2"));
    let others = async {
        let look = looks.next().await;
        api.post("bob", "passes", "3").await?;
        town.delivered("passes").await?;
        anyhow::Ok(look)
    };
    let (stranger, look) = tokio::join!(stranger, others);
    assert_eq!(stranger??.0, StatusCode::SERVICE_UNAVAILABLE);
    town.delivered("waits").await?;
    let turns = town.school.stand_in.turns();
    assert_eq!(turns.len(), 2, "{turns:?}");
    for held in [wake, look?] {
        held.goes(Fate::Lost);
    }
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_taken_while_the_api_server_is_away_wakes_when_it_is_back()
-> anyhow::Result<()> {
    let test = "a_message_that_was_taken_while_the_api_server_is_away_wakes_when_it_is_back";
    let Some(mut town) = Town::open(test).await? else {
        return Ok(());
    };
    let (_gateway, api) = town.gateway().await?;
    town.school.learner("ada", "free").await?;
    // It has a row, and is known.
    api.learner("ada").await?;
    town.school.plane.stop_api_server();
    api.post("ada", "while it is away", "1").await?;
    let (status, _) = api.send("nobody", "who is not known", "2").await?;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "nobody can say");
    town.school.plane.start_api_server().await?;
    let controller = town.school.controller().await?;
    town.delivered("while it is away").await?;
    controller.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_on_a_node_that_dies_runs_again_elsewhere() -> anyhow::Result<()> {
    let test = "a_turn_on_a_node_that_dies_runs_again_elsewhere";
    let Some(town) = Town::open(test).await? else {
        return Ok(());
    };
    let school = &town.school;
    let controller = school.controller().await?;
    let (_gateway, api) = town.gateway().await?;
    school.learner("ada", "free").await?;
    api.post("ada", "in mid-turn", "1").await?;
    town.delivered("in mid-turn").await?;
    let up = school.status("ada", "awake", |status| status.is_ready(1));
    let node = up.await?.0["nodeName"].take();
    school.stand_in.silence("ada");
    school.dies(node.as_str().unwrap_or_default()).await?;
    let next = school.status("ada", "awake elsewhere", |status| status.is_ready(2));
    let next = next.await?;
    eventually("the turn runs again", SOON, || async {
        let turns = school.stand_in.turns();
        let came = turns.iter().any(|(uid, _)| next.0["podUid"] == **uid);
        Ok(came.then_some(()))
    })
    .await?;
    controller.stop()
}
