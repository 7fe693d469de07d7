-- Only the place: a renewed lease writes no index then, and looking for turns that wait has one index to go by. The table is
-- locked against writers while it is read once.
DROP INDEX turn_waiting;
CREATE INDEX turn_waiting ON turn (place) WHERE state IN ('queued', 'running');
