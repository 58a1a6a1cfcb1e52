-- Says whether nobody waits, so that more may read by a grant that a process has.
-- KEYS: as for acquiring. Answers 1 or 0.
if redis.call('EXISTS', KEYS[1], KEYS[2]) == 0 then return 1 end
