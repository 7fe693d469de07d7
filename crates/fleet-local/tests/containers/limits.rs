//! What a container may use of the machine.

use carrel_fleet_local::container::{Exit, Limit};

use crate::fixture::{Bed, Outcome, ended, value};

crate::tests![
    memory_over_the_limit_is_killed_and_counted,
    a_child_that_dies_for_want_of_memory_does_not_end_its_parent,
    forking_without_end_is_refused_at_the_limit,
    temporary_files_are_bounded,
];

const NO_MEMORY_LIMIT: &str = "this user cannot limit memory here";

async fn memory_over_the_limit_is_killed_and_counted(bed: Bed) -> Outcome {
    let container = bed
        .runtime
        .start(bed.spec(1, &["eat", "512"]))
        .await
        .unwrap();
    if container.limits_missing().contains(&Limit::Memory) {
        container.remove().await.unwrap();
        return Outcome::Skipped(NO_MEMORY_LIMIT);
    }
    assert_eq!(
        ended(&container).await,
        Exit::Signal(9),
        "{}",
        container.last_output()
    );
    assert_eq!(container.usage().oom_kills, Some(1));
    container.remove().await.unwrap();
    let said = bed.run(&["eat", "16"]).await;
    assert_eq!(value(&said, "eaten"), "16", "within the limit it lives");
    Outcome::Passed
}

async fn a_child_that_dies_for_want_of_memory_does_not_end_its_parent(bed: Bed) -> Outcome {
    let container = bed
        .runtime
        .start(bed.spec(1, &["eat-in-child"]))
        .await
        .unwrap();
    if container.limits_missing().contains(&Limit::Memory) {
        container.remove().await.unwrap();
        return Outcome::Skipped(NO_MEMORY_LIMIT);
    }
    assert_eq!(ended(&container).await, Exit::Code(0));
    assert_eq!(value(&container.last_output(), "child_survived"), "false");
    assert_eq!(container.usage().oom_kills, Some(1));
    container.remove().await.unwrap();
    Outcome::Passed
}

async fn forking_without_end_is_refused_at_the_limit(bed: Bed) -> Outcome {
    let container = bed.runtime.start(bed.spec(1, &["fork"])).await.unwrap();
    if container.limits_missing().contains(&Limit::Pids) {
        container.remove().await.unwrap();
        return Outcome::Skipped("this kernel or user cannot limit processes");
    }
    ended(&container).await;
    let said = container.last_output();
    let children: u32 = value(&said, "children").parse().unwrap();
    assert!((20..32).contains(&children), "{said}");
    container.remove().await.unwrap();
    Outcome::Passed
}

async fn temporary_files_are_bounded(bed: Bed) -> Outcome {
    let said = bed.run(&["fill", "/tmp"]).await;
    let count = |key| value(&said, key).parse::<u32>().unwrap();
    assert!(count("megabytes") <= 4, "{said}");
    assert!(count("files") <= 1024, "{said}");
    Outcome::Passed
}
