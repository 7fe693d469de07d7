use kube::core::cel;

use super::*;

fn learner(change: impl FnOnce(&mut Learner)) -> Learner {
    let mut learner = Learner::new(
        "ada",
        LearnerSpec {
            class_name: "free".to_owned(),
            ..LearnerSpec::default()
        },
    );
    learner.status = Some(LearnerStatus::default());
    change(&mut learner);
    learner
}

fn refusals(new: &Learner, old: &Learner) -> String {
    let errors: Result<(), cel::ValidationErrors> = new.validate_cel_update(old);
    errors
        .err()
        .map(|errors| errors.to_string())
        .unwrap_or_default()
}

#[test]
fn an_epoch_never_falls() {
    let epoch = |epoch| {
        learner(|learner| {
            learner.status = Some(LearnerStatus {
                epoch,
                ..LearnerStatus::default()
            });
        })
    };
    assert_eq!(refusals(&epoch(5), &epoch(4)), "");
    assert!(refusals(&epoch(3), &epoch(4)).contains("epoch must never fall"));
}

#[test]
fn a_wish_is_raised_or_taken_back_and_never_lowered() {
    let after = |epoch| learner(|learner| learner.spec.wake_after_epoch = epoch);
    assert_eq!(refusals(&after(Some(4)), &after(Some(4))), "");
    assert_eq!(refusals(&after(None), &after(Some(4))), "");
    assert!(refusals(&after(Some(3)), &after(Some(4))).contains("must not be lowered"));
}

#[test]
fn what_is_wanted_is_read_from_the_spec() {
    let wanted = learner(|learner| {
        learner.spec.state = Wanted::Running;
        learner.spec.wake_after_epoch = Some(9);
    });
    let desired = Desired {
        state: DesiredState::Running,
        wake_after_epoch: Some(Epoch(9)),
        deleting: false,
    };
    assert_eq!(wanted.desired(), desired);
}
