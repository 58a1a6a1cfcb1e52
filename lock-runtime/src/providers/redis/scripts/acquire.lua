-- Takes the lock, or queues for it.
-- KEYS: the lock, its waiters, the fencing counter.
-- ARGV: owner, lease in ms, tokens wanted, channel for the grant; no channel: does not queue. When
-- asked again: the entry that it had in the queue, or nothing if it may have one.
-- Answers with the token; or with the first one and their number; or 0 if it is held and the caller
-- did not queue; or else as `wait_in_line`.
local took = redis.pcall('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
if took and not took.err and ARGV[3] == '1' and redis.call('EXISTS', KEYS[2]) == 0 then
  local token = redis.pcall('INCRBY', KEYS[3], 1)
  if type(token) == 'number' and token >= 1e15 and token < 9e15 then return token end
end
