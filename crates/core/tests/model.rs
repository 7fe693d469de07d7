//! Model check of turn, fence, commit and money: every order in which two gateways, several incarnations of one learner and
//! their calls can meet, with a crash at every step and calls that are lost, late or repeated.
//!
//! The rules of the store are written here once more, as small as they can be (`model/store.rs`); the invariants are
//! those of the crate. A rule broken on purpose must be found: those are tests of the check.

#[path = "model/desk.rs"]
mod desk;
#[path = "model/facts.rs"]
mod facts;
#[path = "model/mutation.rs"]
mod mutation;
#[path = "model/purse.rs"]
mod purse;
#[path = "model/state.rs"]
mod state;
#[path = "model/steps.rs"]
mod steps;
#[path = "model/store.rs"]
mod store;

use carrel_core::invariants::Invariant;
use desk::NOTHING_BREAKS;
use mutation::Mutation;
use rstest::rstest;
use stateright::{Checker, HasDiscoveries, Model};
use steps::Desk;

/// Explores everything within the bounds, or until a rule breaks.
fn checked(desk: Desk) -> impl Checker<Desk> {
    desk.checker()
        .threads(2)
        .finish_when(HasDiscoveries::AllFailures)
        .spawn_bfs()
        .join()
}

#[rstest]
#[case(Desk { messages: 2, pods: 2, leases: 2, late: 0, ..Desk::default() })]
#[case(Desk { messages: 2, pods: 2, leases: 1, late: 1, ..Desk::default() })]
#[case(Desk { messages: 1, pods: 3, leases: 2, late: 0, ..Desk::default() })]
#[case(Desk { messages: 1, pods: 2, leases: 2, late: 2, ..Desk::default() })]
fn no_order_of_crashes_and_calls_breaks_an_invariant(#[case] desk: Desk) {
    finds_nothing(desk);
}

#[rstest]
#[case(Desk { messages: 2, pods: 2, leases: 2, late: 1, ..Desk::default() })]
#[case(Desk { messages: 1, pods: 3, leases: 2, late: 1, ..Desk::default() })]
#[ignore = "minutes of both cores: run with --ignored after a change of the rules"]
fn no_order_within_wider_bounds_breaks_an_invariant(#[case] desk: Desk) {
    finds_nothing(desk);
}

fn finds_nothing(desk: Desk) {
    let checker = checked(desk);
    assert_eq!(
        checker
            .discovery(NOTHING_BREAKS)
            .map(|path| path.to_string()),
        None
    );
    for property in checker.model().properties() {
        if property.name != NOTHING_BREAKS {
            assert!(
                checker.discovery(property.name).is_some(),
                "never seen: {}",
                property.name
            );
        }
    }
}

#[rstest]
#[case(Mutation::AssignsBeforeStoring, Some(Invariant::OnePodActs))]
#[case(Mutation::CommitsUnfenced, Some(Invariant::OnePodActs))]
#[case(Mutation::ContactLowersFence, Some(Invariant::EpochsFence))]
#[case(Mutation::AnswersBeforeStoring, Some(Invariant::OneOutcome))]
#[case(Mutation::ForgetsKeys, Some(Invariant::OneOutcome))]
#[case(Mutation::SkipsTheQueue, Some(Invariant::OneOutcome))]
#[case(Mutation::FailsWithoutLock, Some(Invariant::OneOutcome))]
#[case(Mutation::RunsAgainWhatIsDone, Some(Invariant::OneOutcome))]
#[case(Mutation::CommitsInHalves, Some(Invariant::CommitsWhole))]
#[case(Mutation::ReportsBeforeCommit, Some(Invariant::CommitsWhole))]
#[case(Mutation::ReadsBeforeFencing, Some(Invariant::CommitsWhole))]
#[case(Mutation::KeepsFailedWork, Some(Invariant::CommitsWhole))]
#[case(Mutation::CommitsRepeats, Some(Invariant::CommitsWhole))]
#[case(Mutation::CommitsBeforeDurable, Some(Invariant::LastGoodStays))]
#[case(Mutation::IgnoresLeases, None)]
fn a_rule_that_is_broken_on_purpose_is_found(
    #[case] broken: Mutation,
    #[case] judged: Option<Invariant>,
) {
    let desk = Desk {
        messages: 2,
        pods: 2,
        leases: 2,
        late: 1,
        broken: Some(broken),
        judged,
    };
    assert!(checked(desk).discovery(NOTHING_BREAKS).is_some());
}
