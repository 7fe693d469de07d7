-- All that a census reads of a learner.
CREATE INDEX learner_census ON learner (class, status_state, id);
