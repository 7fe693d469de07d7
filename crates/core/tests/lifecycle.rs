//! Properties of the lifecycle plan: for any observation, and for any history of a learner whose pods, fleet and wishes
//! misbehave; and that each deliberately broken plan is found.

#[path = "lifecycle/any.rs"]
mod any;
#[path = "lifecycle/broken.rs"]
mod broken;
#[path = "lifecycle/each_plan.rs"]
mod each_plan;
#[path = "lifecycle/histories.rs"]
mod histories;
#[path = "lifecycle/table.rs"]
mod table;
#[path = "lifecycle/world.rs"]
mod world;
