//! What is left of a cluster whose test was killed.
