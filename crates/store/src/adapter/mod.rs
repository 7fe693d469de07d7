//! What every implementation of the port decides the same way: pure, without a database. Roles never use it.

pub mod audit;
pub mod census;
pub mod column;
pub mod digest;
pub mod lineage;
pub mod outcome;
pub mod period;
pub mod room;
pub mod standing;
