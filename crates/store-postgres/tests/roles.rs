//! Each role of Carrel does its part as its own role of the database, and nothing that is another's.

mod support;

use carrel_core::event::Cursor;
use carrel_core::learner::{DesiredState, LearnerState, Status};
use carrel_core::{Epoch, Generation, LearnerId, NanoUsd, ReservationId};
use carrel_store::SharedStore;
use carrel_store::access::{SecretKind, Subject};
use carrel_store::heads::{Contact, Restored, WrappedKey};
use carrel_store::ledger::{NewReservation, Reserved, Settlement, UsageBy};
use carrel_store::suite::fixture::{
    accept, at, begin, claim, commit, committed, events, learner, owner, running,
};
use carrel_store::turns::{OwnerWrite, Timing};
use carrel_store_postgres::{Options, PostgresStore, migrate};
use carrel_testkit::postgres::Server;
use support::SETTINGS;
use uuid::Uuid;

const ROLES: &str = include_str!("../roles.sql");
const DATABASE: &str = "least";

async fn as_role(server: &Server, role: &str) -> SharedStore {
    let options = Options::new(&server.url(role, DATABASE));
    let store = PostgresStore::open(&options).await;
    std::sync::Arc::new(store.expect("a store"))
}

/// What a role may not do, each refused for want of rights.
fn refused(server: &Server, role: &str, statements: &[&str]) {
    for statement in statements {
        let attempt = format!(
            "SET ROLE {role}; DO $do$ BEGIN EXECUTE $sql${statement}$sql$; RAISE EXCEPTION 'it was done'; \
             EXCEPTION WHEN insufficient_privilege THEN NULL; END $do$;"
        );
        server.psql(DATABASE, &attempt);
    }
}

struct Roles {
    gateway: SharedStore,
    router: SharedStore,
    vault: SharedStore,
    fleet: SharedStore,
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_does_its_part_and_no_other() {
    let Some(server) = Server::shared(SETTINGS) else {
        return;
    };
    server.psql("postgres", &format!("CREATE DATABASE {DATABASE}"));
    server.psql(DATABASE, ROLES);
    let owner_of_tables = Options::new(&server.url("carrel_migrate", DATABASE));
    migrate(&owner_of_tables).await.expect("migrated");
    server.psql(DATABASE, ROLES);
    let roles = Roles {
        gateway: as_role(server, "carrel_gateway").await,
        router: as_role(server, "carrel_router").await,
        vault: as_role(server, "carrel_vault").await,
        fleet: as_role(server, "carrel_fleet").await,
    };
    let ada = learner(&roles.gateway, "ada").await;
    woken_and_at_work(&roles, &ada).await;
    limits(server);
    let Roles { gateway, vault, .. } = roles;
    assert!(gateway.close_learner(&ada, at(40)).await.expect("closed"));
    vault.erase_learner(&ada, at(41)).await.expect("erased");
    assert_eq!(
        vault.erased_repositories(at(99)).await.expect("read").len(),
        1
    );
    assert_eq!(gateway.learner(&ada, at(42)).await.expect("read"), None);
}

/// A learner's day, each step by whose it is.
async fn woken_and_at_work(roles: &Roles, ada: &LearnerId) {
    let Roles {
        gateway,
        router,
        vault,
        fleet,
    } = roles;
    let subject = Subject::Learner(ada.clone());
    let granted = gateway.grant([1; 32], SecretKind::Code, &subject, at(0), at(90));
    assert!(granted.await.expect("granted"));
    let redeemed = gateway.redeem([1; 32], at(1)).await.expect("redeemed");
    assert_eq!(redeemed, Some(subject));
    let set = gateway.set_desired_state(ada, DesiredState::Auto).await;
    assert!(set.expect("set"));
    assert!(gateway.wake_after(ada, Epoch(0)).await.expect("wished"));
    let seen = Status {
        epoch: Epoch(1),
        state: LearnerState::Waking,
        ..Status::default()
    };
    let asleep = Status::default();
    let written = fleet.put_status(ada, &asleep, &seen, at(2)).await;
    assert!(written.expect("written"));
    assert_eq!(fleet.stirring().await.expect("listed").len(), 1);
    let contact = vault.contact(ada, Epoch(1)).await.expect("answered");
    assert!(matches!(contact, Contact::Current { .. }));
    let key = WrappedKey {
        algorithm: "A256GCM".to_owned(),
        key_id: "kek-1".to_owned(),
        wrapped: vec![3; 40],
    };
    let kept = vault.put_key_if_absent(ada, &key).await.expect("kept");
    assert_eq!(kept.as_ref(), Some(&key));
    let (turn, lease) = running(gateway, ada, "k1", 1).await;
    let new = NewReservation {
        id: ReservationId(Uuid::now_v7()),
        learner: ada.clone(),
        epoch: Some(Epoch(1)),
        model: "demo/tutor".to_owned(),
        amount: NanoUsd(5),
        per_day: Some(NanoUsd(9)),
        per_month: None,
    };
    let held = router.reserve(&new, at(13)).await.expect("answered");
    assert!(matches!(held, Reserved::Held { .. }));
    let cost = Settlement {
        cost: NanoUsd(4),
        input_tokens: 1,
        output_tokens: 2,
    };
    assert!(router.settle(new.id, &cost, at(14)).await.expect("settled"));
    router.rebuild_usage().await.expect("rebuilt");
    assert_eq!(
        router.pass_fence(ada, Epoch(1)).await.expect("passed"),
        None
    );
    let renewed = gateway.renew(&[(turn, lease)], at(99)).await;
    assert_eq!(renewed.expect("renewed"), []);
    committed(vault, &commit(ada, 1, 1, Some(turn))).await;
    let restored = vault.restore(ada, Generation(1), Some(Epoch(1)), at(21));
    let restored = restored.await.expect("answered");
    assert!(matches!(restored, Restored::Head(_)), "{restored:?}");
    let failing = accept(gateway, ada, "k2", 22).await;
    let claimed = claim(gateway, ada, owner(), 23).await;
    begin(gateway, &claimed, 1, 24).await;
    let verdict = carrel_store::suite::fixture::failure(carrel_core::turn::FailureCode::Timeout);
    let failed = gateway.fail(failing, claimed.lease, &verdict, Timing::default(), at(25));
    assert!(matches!(
        failed.await.expect("failed"),
        OwnerWrite::Written(_)
    ));
    let usage = gateway.usage(UsageBy::Learner, None, at(0), at(90)).await;
    assert_eq!(usage.expect("read").len(), 1);
    for store in [gateway, router, vault, fleet] {
        assert!(!events(store, ada).await.is_empty());
        store.feed(Cursor::default(), 9).await.expect("read");
    }
}

/// What no role may do, and what each may not.
fn limits(server: &Server) {
    let nobody_may = [
        "UPDATE event SET time = 0",
        "DELETE FROM event",
        "TRUNCATE event",
        "DELETE FROM tombstone",
        "DELETE FROM learner",
        "DELETE FROM message",
        "DELETE FROM turn",
        "UPDATE message SET text = ''",
        "ALTER TABLE event DISABLE TRIGGER ALL",
        "CREATE TABLE mine (a int)",
        "CREATE TEMP TABLE learner (id text)",
        "UPDATE _sqlx_migrations SET version = 9",
    ];
    for role in [
        "carrel_gateway",
        "carrel_router",
        "carrel_vault",
        "carrel_fleet",
    ] {
        refused(server, role, &nobody_may);
    }
    let not = |role, statements: &[&str]| refused(server, role, statements);
    not(
        "carrel_gateway",
        &[
            "SELECT wrapped FROM data_key",
            "SELECT erase_closed('ada', 0)",
            "UPDATE learner SET head_generation = 9",
            "UPDATE account SET held = 0",
            "INSERT INTO generation DEFAULT VALUES",
            "SELECT id FROM reservation",
        ],
    );
    not(
        "carrel_router",
        &[
            "SELECT text FROM message",
            "SELECT reply FROM turn",
            "UPDATE turn SET state = 'done'",
            "SELECT wrapped FROM data_key",
            "SELECT hash FROM secret",
            "SELECT erase_closed('ada', 0)",
            "UPDATE learner SET head_generation = 9",
        ],
    );
    not(
        "carrel_vault",
        &[
            "SELECT hash FROM secret",
            "SELECT id FROM reservation",
            "UPDATE account SET held = 0",
            "INSERT INTO message DEFAULT VALUES",
            "UPDATE learner SET class = 'paid'",
        ],
    );
    not(
        "carrel_fleet",
        &[
            "SELECT wrapped FROM data_key",
            "SELECT hash FROM secret",
            "UPDATE turn SET state = 'done'",
            "UPDATE learner SET fence = 9",
            "SELECT erase_closed('ada', 0)",
        ],
    );
    // A check that is passed by what may be done would show nothing.
    let allowed = std::panic::catch_unwind(|| {
        refused(server, "carrel_vault", &["SELECT wrapped FROM data_key"]);
    });
    assert!(allowed.is_err(), "what is allowed is not called refused");
}
