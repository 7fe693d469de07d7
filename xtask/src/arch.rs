//! `cargo xtask arch`: reads the workspace, judges it by the rules, and says what breaks them.

mod facts;
mod rules;
mod table;
#[cfg(test)]
mod tests;

use crate::cargo;

pub(crate) fn run() -> anyhow::Result<bool> {
    println!("== architecture");
    let workspace = facts::read(cargo::root(), &cargo::metadata()?)?;
    let breaches = rules::breaches(&workspace);
    for breach in &breaches {
        println!("{breach}");
    }
    println!("{}", rules::sizes(&workspace.files));
    println!(
        "arch: {} crates, {} breaches",
        workspace.packages.len(),
        breaches.len()
    );
    Ok(breaches.is_empty())
}
