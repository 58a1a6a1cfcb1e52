-- Takes the lock, or queues for it.
-- KEYS: the lock, its waiters, the fencing counter.
-- ARGV: owner, lease in ms, tokens wanted, channel for the grant; no channel: does not queue. When
-- asked again: the entry that it had in the queue, or nothing if it may have one.
-- Answers with the token; or with the first one and their number; or 0 if it is held and the caller
-- did not queue; or else as `wait_in_line`.
local took = redis.pcall('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
if took and not took.err and ARGV[3] == '1' and redis.call('EXISTS', KEYS[2]) == 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local last = redis.pcall('GET', KEYS[3])
  last = type(last) == 'string' and tonumber(last)
  if last and last < now then
    redis.call('SET', KEYS[3], string.format('%.0f', now), 'PX', 691200000)
    return now
  end
end
