-- Takes permits, or queues for them.
-- KEYS: the permits that are out, with their ends, and the waiters.
-- ARGV: owner, lease in ms, 1, channel for the grant; no channel: does not queue; limit,take. When
-- asked again: the entry that it had in the queue, or nothing if it may have one.
-- Answers as the script for a mutex does, with the clock's number in place of a token. The remaining
-- time is that of the first permit to end; -1 for a set that never expires, -5 for a string, -3 for
-- anything else that is no sorted set.
local limit, take = string.match(ARGV[5], '^(%d+),(%d+)$')
take = tonumber(take)
if take <= 100 and redis.call('EXISTS', KEYS[2]) == 0 then
  local time = redis.call('TIME')
  local at = time[1] * 1000 + math.floor(time[2] / 1000)
  local left = redis.call('PTTL', KEYS[1])
  -- A set that never expires is somebody's book.
  local ended = left ~= -1 and redis.pcall('ZREMRANGEBYSCORE', KEYS[1], '-inf', at)
  if type(ended) == 'number' and redis.call('ZCARD', KEYS[1]) + take <= tonumber(limit) then
    local ends = at + ARGV[2]
    local permits = { ends, ARGV[1] }
    for number = 2, take do
      permits[#permits + 1] = ends
      permits[#permits + 1] = ARGV[1] .. '#' .. number
    end
    redis.call('ZADD', KEYS[1], unpack(permits))
    if ended > 0 then left = redis.call('PTTL', KEYS[1]) end
    if left < 3 * ARGV[2] then redis.call('PEXPIRE', KEYS[1], 3 * ARGV[2]) end
    return time[1] .. string.sub('00000' .. time[2], -6)
  end
end
