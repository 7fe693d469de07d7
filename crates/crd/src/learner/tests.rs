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
