-- Takes the lock, or queues for it.
-- KEYS: the lock, its waiters, the fencing counter.
-- ARGV: owner, lease in ms, tokens wanted, channel for the grant; no channel: does not queue. When
-- asked again: the entry that it had in the queue, or nothing if it may have one.
-- Answers with the token, as a text; or with the first one and their number; or, if it is held and
-- the caller did not queue, with 'held', the remaining time (-1 for a value that never expires, -4
-- for a sorted set, -3 for anything else that is no string) and the holder; or else as
-- `take_or_wait`.
local took = redis.pcall('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
if took and not took.err and ARGV[3] == '1' and redis.call('EXISTS', KEYS[2]) == 0 then
  -- As texts, since numbers cost more to read and to write than all else here.
  local time = redis.call('TIME')
  local now = time[1] .. string.sub('00000' .. time[2], -6)
  -- Tells what the counter was. Its life is renewed with every connection.
  local last = redis.pcall('SET', KEYS[3], now, 'KEEPTTL', 'GET')
  if type(last) == 'string' then
    if #last == #now and last < now then return now end
    redis.call('SET', KEYS[3], last, 'KEEPTTL')
  end
end
