local owner = ARGV[1]
-- Somebody may have put what is no string there; then the queue is left all the same.
local holder = redis.pcall('GET', lock)
local place = ARGV[2] and redis.pcall('LPOS', waiters, ARGV[2])
if type(place) == 'number' then
  redis.call('LREM', waiters, 1, ARGV[2])
else
  place = nil
  for index, entry in ipairs(redis.pcall('LRANGE', waiters, 0, -1)) do
    if parts(entry) == owner then
      redis.call('LREM', waiters, 1, entry)
      place = index - 1
    end
  end
end
if holder == owner then
  give_up(owner)
  return 1
end
if not place then return 0 end
if not holder then
  -- Free although somebody waited: the caller was to notice.
  hand_over(owner)
elseif place == 0 and (type(holder) ~= 'string' or string.sub(holder, 1, 4) ~= 'lk1:'
    or string.sub(holder, -5) == ':kept') then
  -- A foreign holder hands nothing over, and neither does a lock that is kept until its time is
  -- over; only the head of the queue looks: tell the new one.
  local entry = redis.call('LINDEX', waiters, 0)
  if entry then
    local next_owner, channel = parts(entry)
    redis.pcall('PUBLISH', channel, next_owner .. '|0|0')
  end
end
return 1
