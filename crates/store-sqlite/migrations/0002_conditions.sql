-- What holds of a learner besides its state: written with its status, whenever that is.
ALTER TABLE learner ADD COLUMN status_conditions TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(status_conditions));
