//! `carrel crd`: the definitions of our kinds, for a cluster that gets them by no chart.

use crate::output;

pub(super) fn run() -> anyhow::Result<()> {
    for definition in carrel_crd::definitions() {
        output::piece(&format!("---\n{}", carrel_crd::to_yaml(&definition)?))?;
    }
    Ok(())
}
