//! Classes of a cluster: objects, read and written with the rights of the kubeconfig's user; no gateway is asked.

use carrel_core::class::{ClassSpec, DEFAULT_CLASS};
use carrel_crd::{LearnerClass, LearnerClassSpec, names};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};

use super::Class;
use crate::cluster::{Cluster, Right, failure};
use crate::config::ClassDocument;
use crate::exit::{Failure, Kind};
use crate::output;

fn right(verb: &'static str) -> Right {
    let resource = "learnerclasses.carrel.dev";
    Right { verb, resource }
}

fn classes(cluster: &Cluster) -> Api<LearnerClass> {
    Api::namespaced(cluster.client.clone(), &cluster.namespace)
}

/// All of them; one that cannot be used is named on stderr.
pub(super) async fn ls(cluster: &Cluster) -> anyhow::Result<Vec<Class>> {
    let list = classes(cluster).list(&ListParams::default()).await;
    let list = list.map_err(|error| refused(cluster, "list", &error))?;
    let mut found = Vec::new();
    for object in list {
        match as_class(&object) {
            Ok(class) => found.push(class),
            Err(why) => output::talk(&format!("carrel: {why}")),
        }
    }
    Ok(found)
}

pub(super) async fn show(cluster: &Cluster, name: &str) -> anyhow::Result<Class> {
    let object = classes(cluster).get_opt(name).await;
    match object.map_err(|error| refused(cluster, "get", &error))? {
        Some(object) => Ok(as_class(&object)?),
        // It is there when no object says otherwise.
        None if name == DEFAULT_CLASS => Ok(Class {
            name: name.to_owned(),
            spec: ClassSpec::default(),
        }),
        None => {
            let message = format!(
                "there is no class '{name}' in namespace '{}' of context '{}'",
                cluster.namespace, cluster.context
            );
            Err(Failure::new(Kind::NotFound, message).into())
        }
    }
}

/// Writes them by server-side apply: fields that another manager holds are left to it, and that is said.
pub(super) async fn apply(cluster: &Cluster, documents: Vec<ClassDocument>) -> anyhow::Result<()> {
    for document in documents {
        let spec = serde_json::to_value(&document.spec)?;
        let spec: LearnerClassSpec = serde_json::from_value(spec)?;
        let name = document.name.to_string();
        let object = LearnerClass::new(&name, spec);
        let params = PatchParams::apply(names::ADMIN);
        let applied = classes(cluster)
            .patch(&name, &params, &Patch::Apply(&object))
            .await;
        applied.map_err(|error| refused(cluster, "patch", &error))?;
        output::talk(&format!(
            "class '{name}' applied in namespace '{}'; each learner takes it at its next wake",
            cluster.namespace
        ));
    }
    Ok(())
}

fn as_class(object: &LearnerClass) -> Result<Class, Failure> {
    let name = object.name_any();
    let spec = object.spec.to_class().map_err(|why| {
        Failure::new(
            Kind::Failed,
            format!("class '{name}' cannot be used: {why}"),
        )
    })?;
    Ok(Class { name, spec })
}

/// A cluster without our definitions has nothing at these paths.
fn refused(cluster: &Cluster, verb: &'static str, error: &kube::Error) -> Failure {
    let failure = failure(cluster, right(verb), error);
    if failure.kind != Kind::NotFound {
        return failure;
    }
    let message = format!(
        "the cluster of context '{}' does not know LearnerClass: carrel crd | kubectl --context {} apply --server-side -f -",
        cluster.context, cluster.context
    );
    Failure::new(Kind::NotFound, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::script::{cluster, forbidden, list, refusal};
    use crate::exit::kind_of;

    const CLASSES: &str = "/apis/carrel.dev/v1alpha1/namespaces/school/learnerclasses";
    const FREE: &str = "/apis/carrel.dev/v1alpha1/namespaces/school/learnerclasses/free?";

    fn object(name: &str, spec: &serde_json::Value) -> serde_json::Value {
        json!({"apiVersion": "carrel.dev/v1alpha1", "kind": "LearnerClass", "metadata": {"name": name}, "spec": spec})
    }

    fn document(seconds: u32) -> ClassDocument {
        let mut spec = ClassSpec::default();
        spec.idle.max_seconds = seconds;
        ClassDocument {
            name: "free".parse().expect("a name"),
            spec,
        }
    }

    #[tokio::test]
    async fn a_class_is_applied_under_our_name_and_without_force() {
        let answer = object("free", &json!({}));
        let (cluster, asked) = cluster(vec![("PATCH", FREE, 200, answer)]);
        let applied = apply(&cluster, vec![document(333)]).await;
        assert!(applied.is_ok(), "{applied:?}");
        let asked = asked.of("PATCH");
        assert!(
            asked[0].0.contains("fieldManager=carrel-admin"),
            "{asked:?}"
        );
        assert!(!asked[0].0.contains("force=true"), "{asked:?}");
        let (_, body) = &asked[0];
        assert_eq!(body["kind"], "LearnerClass");
        assert_eq!(body["spec"]["idle"]["maxSeconds"], 333);
    }

    #[tokio::test]
    async fn whoever_holds_a_field_and_a_right_that_lacks_is_said() {
        let conflict = refusal(409, "Apply failed with 1 conflict: conflict with \"flux\"");
        let (cluster_, _) = cluster(vec![("PATCH", FREE, 409, conflict)]);
        let error = apply(&cluster_, vec![document(333)])
            .await
            .expect_err("it is held");
        assert_eq!(kind_of(&error), Kind::Conflict);
        assert!(error.to_string().contains("flux"), "{error}");
        let (cluster_, _) = cluster(vec![("PATCH", FREE, 403, forbidden())]);
        let error = apply(&cluster_, vec![document(333)])
            .await
            .expect_err("no right");
        assert_eq!(kind_of(&error), Kind::NotAllowed);
        assert!(
            error
                .to_string()
                .contains("may not patch learnerclasses.carrel.dev"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn the_default_is_there_without_an_object_and_no_other() {
        let (cluster, _) = cluster(vec![]);
        let class = show(&cluster, "default").await.expect("it is built in");
        assert_eq!(class.spec, ClassSpec::default());
        let error = show(&cluster, "paid").await.map(|class| class.name);
        let error = error.expect_err("nobody made it");
        assert_eq!(kind_of(&error), Kind::NotFound);
    }

    #[tokio::test]
    async fn a_class_that_cannot_be_used_hides_no_other() {
        let broken = object(
            "broken",
            &json!({"idle": {"minSeconds": 90, "maxSeconds": 30}}),
        );
        let good = object("good", &json!({"idle": {"maxSeconds": 99}}));
        let answer = ("GET", CLASSES, 200, list(&[broken, good]));
        let (cluster_, _) = cluster(vec![answer]);
        let found = ls(&cluster_).await.expect("a list");
        let names: Vec<_> = found.iter().map(|class| class.name.as_str()).collect();
        assert_eq!(names, ["good"]);
        let (cluster_, _) = cluster(vec![]);
        let error = ls(&cluster_)
            .await
            .map(|list| list.len())
            .expect_err("no such kind");
        assert!(
            error.to_string().contains("carrel crd | kubectl"),
            "{error}"
        );
    }
}
