-- Calls that used nothing are no calls any more: what was folded with them is folded anew when it is next read.
DELETE FROM usage;
UPDATE projection SET sequence = 0 WHERE name = 'usage';
