use carrel_core::class::ClassSpec;
use serde_json::json;

use super::*;

pub(crate) fn options() -> PodOptions {
    PodOptions {
        namespaces: vec!["learners-0".to_owned()],
        most_in_namespace: 2500,
        image: "school/carrel:1".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        image_pull_secrets: vec!["pull".to_owned()],
        host_aliases: vec![([10, 96, 0, 7].into(), "router.carrel.svc".to_owned())],
        port: 7080,
        must_not_reach: vec![([169, 254, 169, 254], 80).into()],
        must_reach: vec!["router.carrel.svc:7071".to_owned()],
        grace_seconds: 60,
        priority_class: "learners".to_owned(),
        node_selector: json!({"pool": "learners"}),
        tolerations: vec![json!({"key": "learners", "operator": "Exists"})],
        topology_spread_constraints: vec![json!({
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "learner"}},
        })],
    }
}

fn template() -> Template {
    Template::new(&options(), r#"[{"kid":"k","x":"y"}]"#.to_owned())
}

fn class(spec: ClassSpec) -> Class {
    Class {
        hash: template().hash("free", &spec),
        name: "free".to_owned(),
        uid: String::new(),
        generation: Some(1),
        spec,
    }
}

#[test]
fn a_pod_is_as_it_was_reviewed() {
    let mut spec = ClassSpec::default();
    spec.agent.image = "school/tutor:7".to_owned();
    spec.agent.command = vec!["/bin/tutor".to_owned()];
    spec.isolation.runtime_class_name = "gvisor".to_owned();
    spec.resources.requests.memory = Some("128Mi".parse().unwrap());
    let mut pod = template().pod(&class(spec), "learners-0").unwrap();
    let name = pod.metadata.name.replace("w-name".to_owned()).unwrap();
    assert!(name.starts_with("w-") && name.len() == 12, "{name}");
    insta::assert_snapshot!(serde_yaml::to_string(&pod).unwrap());
}

#[test]
fn only_what_a_pod_is_made_of_makes_another_hash() {
    let hash = |change: fn(&mut ClassSpec)| {
        let mut spec = ClassSpec::default();
        change(&mut spec);
        template().hash("free", &spec)
    };
    let plain = hash(|_| ());
    assert_eq!(plain, hash(|spec| spec.warm_pool.size = 7));
    assert_eq!(plain, hash(|spec| spec.idle.max_seconds = 7));
    assert_ne!(plain, hash(|spec| spec.resources.memory.0 = 64 << 20));
    assert_ne!(
        plain,
        hash(|spec| spec.agent.image = "school/tutor:7".to_owned())
    );
    assert_ne!(
        plain,
        hash(|spec| spec.resources.requests.cpu = Some("50m".parse().unwrap()))
    );
    assert_ne!(plain, hash(|spec| spec.isolation.user_namespace = false));
}
