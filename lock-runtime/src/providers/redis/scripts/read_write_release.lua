-- Ends what a reader or a writer holds, and lets in whoever waits for it.
-- KEYS: as for acquiring. ARGV: owner, and the mode: r, u or w.
-- Answers 1, or 0 if the owner did not hold the lock.
-- Where a reader waits to become the writer, there is something in the writer's place.
if ARGV[2] ~= 'u' and redis.call('EXISTS', KEYS[2]) == 0
    and (ARGV[2] == 'w' or redis.call('EXISTS', KEYS[1]) == 0) then
  if ARGV[2] == 'r' then
    local held = redis.call('SREM', KEYS[4], ARGV[1])
    -- What is no set of ends knows of none. Without that answer the reader would stay.
    return redis.pcall('ZREM', KEYS[5], ARGV[1]) == 1 and held or 0
  end
  if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
  return redis.call('DEL', KEYS[1])
end
