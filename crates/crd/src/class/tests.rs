use super::*;

fn class(change: impl FnOnce(&mut LearnerClassSpec)) -> LearnerClass {
    let mut spec = LearnerClassSpec::default();
    change(&mut spec);
    LearnerClass::new("free", spec)
}

#[test]
fn the_defaults_are_those_of_one_machine() {
    let spec = LearnerClassSpec::default();
    assert_eq!(spec.to_class(), Ok(ClassSpec::default()));
}

#[test]
fn a_document_of_one_machine_is_one_of_kubernetes_and_means_the_same() {
    let mut one_machine = ClassSpec::default();
    one_machine.agent.command = vec!["/bin/tutor".to_owned()];
    one_machine.agent.port = 8123;
    one_machine.resources.cpu = "1500m".parse().unwrap();
    one_machine.resources.pids = 77;
    one_machine.resources.requests.memory = Some("128Mi".parse().unwrap());
    one_machine.isolation.user_namespace = false;
    one_machine.idle.max_seconds = 333;
    one_machine.turn.max_queued = 5;
    one_machine.warm_pool.size = 9;
    one_machine.snapshot.exclude = vec!["target".to_owned()];
    one_machine.egress.allow = vec!["pypi.example".to_owned()];
    one_machine.models.routes = BTreeMap::from([("default".to_owned(), "demo/tutor".to_owned())]);
    one_machine.budget.per_day_usd = serde_json::from_value("0.25".into()).unwrap();
    let value = serde_json::to_value(&one_machine).unwrap();
    let spec: LearnerClassSpec = serde_json::from_value(value).unwrap();
    assert_eq!(spec.to_class(), Ok(one_machine));
}

#[test]
fn what_no_schema_can_see_is_refused_by_the_path_of_its_field() {
    let spec = class(|spec| spec.resources.memory = "1Ki".to_owned()).spec;
    let error = spec.to_class().unwrap_err().to_string();
    assert_eq!(
        error,
        "'spec.resources.memory' must be from '16Mi' to '1Ti'"
    );
}
