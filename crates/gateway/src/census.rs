//! `carrel_learners{state,class}`: counted when somebody looks, at most every few seconds, and shown whole.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carrel_store::Result;
use carrel_store::learners::Counted;
use carrel_telemetry::label::Word;
use moka::future::Cache;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// A count is good for so long.
const FRESH_FOR: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    state: Word,
    class: String,
}

/// How many learners of which class are in which state. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Census {
    shown: Arc<Mutex<Vec<Counted>>>,
    fresh: Cache<(), ()>,
}

impl Census {
    fn lasting(time: Duration) -> Self {
        Self {
            shown: Arc::default(),
            fresh: Cache::builder().time_to_live(time).build(),
        }
    }

    fn shown(&self) -> MutexGuard<'_, Vec<Counted>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts anew unless that was done just now; whoever comes meanwhile waits for it.
    pub(crate) async fn refresh(&self, count: impl Future<Output = Result<Vec<Counted>>>) {
        let count = async {
            *self.shown() = count.await?;
            Ok::<_, carrel_store::Error>(())
        };
        if let Err(error) = self.fresh.try_get_with((), count).await {
            tracing::warn!(%error, "learners cannot be counted");
        }
    }
}

impl Default for Census {
    fn default() -> Self {
        Self::lasting(FRESH_FOR)
    }
}

impl Collector for Census {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Learners, by state and class";
        let mut family = encoder.encode_descriptor("learners", help, None, MetricType::Gauge)?;
        for counted in self.shown().iter() {
            let labels = Labels {
                state: Word::of(counted.state),
                class: counted.class.to_string(),
            };
            let count = i64::try_from(counted.learners).unwrap_or(i64::MAX);
            ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use carrel_core::learner::LearnerState;
    use carrel_telemetry::Registry;
    use prometheus_client::encoding::text::encode;
    use tokio::sync::oneshot;

    use super::*;

    /// What is shown after each of two looks at once and one more, when each count is one more than the last.
    async fn looks(census: &Census) -> [String; 3] {
        let counts = AtomicU64::new(0);
        let mut registry = Registry::with_prefix("carrel");
        registry.register_collector(Box::new(census.clone()));
        let look = async || {
            let count = async {
                tokio::task::yield_now().await;
                let learners = counts.fetch_add(1, Ordering::Relaxed) + 1;
                Ok(vec![Counted {
                    class: "free".parse().expect("a label"),
                    state: LearnerState::Asleep,
                    learners,
                }])
            };
            census.refresh(count).await;
            let mut text = String::new();
            encode(&mut text, &registry).expect("text");
            let shown = text
                .lines()
                .find(|line| line.starts_with("carrel_learners{"));
            shown.unwrap_or_default().to_owned()
        };
        let (first, second) = tokio::join!(look(), look());
        [first, second, look().await]
    }

    fn shows(count: u64) -> String {
        format!(r#"carrel_learners{{state="Asleep",class="free"}} {count}"#)
    }

    #[tokio::test]
    async fn whoever_looks_while_a_count_is_fresh_sees_it_whole_and_causes_none() {
        let census = Census::lasting(Duration::from_hours(1));
        assert_eq!(looks(&census).await, [shows(1), shows(1), shows(1)]);
        // Which is not for ever.
        let census = Census::lasting(Duration::ZERO);
        let [.., last] = looks(&census).await;
        assert!(last == shows(2) || last == shows(3), "{last}");
    }

    #[tokio::test]
    async fn the_last_count_is_shown_while_it_is_counted_anew_and_when_that_fails() {
        let census = Census::lasting(Duration::ZERO);
        looks(&census).await;
        let before = census.shown().clone();
        assert_eq!(before.len(), 1);
        let (ask, asked) = oneshot::channel();
        let (fail, failed) = oneshot::channel();
        let count = async {
            ask.send(()).expect("somebody looks meanwhile");
            Err(failed.await.expect("a failure"))
        };
        let look_meanwhile = async {
            asked.await.expect("it is counted anew");
            assert_eq!(*census.shown(), before);
            let away = carrel_store::Error::Corrupt {
                doing: "counting",
                what: "a state".to_owned(),
            };
            fail.send(away).expect("it is waited for");
        };
        tokio::join!(census.refresh(count), look_meanwhile);
        assert_eq!(*census.shown(), before);
    }
}
