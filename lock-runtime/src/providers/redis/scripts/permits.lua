-- A semaphore. KEYS: the permits that are out, with their ends, and the waiters.
--
-- The permits are where the .NET library has them: a sorted set, whose scores are ends by the
-- server's clock in milliseconds. The permits of one grant are owner, owner#2, and so on.

local now = math.floor(clock() / 1000)

-- How many names go into one command.
local MANY = 1000

-- An entry of the queue: limit,take| and then as for every lock.
local function parts(entry)
  local mode, owner, channel, lease, tokens, expires =
    string.match(entry, '^(%d+,%d+)|([^|]+)|(.*)|(%d+)|(%d+)|(%d+)$')
  return owner, channel, lease, tokens, expires, mode
end

-- How many permits there are in all, as this caller says, and how many it takes.
local function numbers(mode)
  local limit, take = string.match(mode, '^(%d+),(%d+)$')
  return tonumber(limit), tonumber(take)
end

-- Drops the permits that have ended. Returns whether there were any. A set that never expires is
-- somebody's book.
local function purge()
  return redis.call('PTTL', lock) ~= -1
    and redis.call('ZREMRANGEBYSCORE', lock, '-inf', now) > 0
end

local function is_closed()
  return false
end

-- Says whether whoever comes first may have what it wants.
local function has_room(mode)
  local limit, take = numbers(mode)
  return redis.call('ZCARD', lock) + take <= limit
end

-- Says whether a client that hands nothing over has a permit. Of very many, those are looked at
-- that end first.
local function has_foreign()
  for _, member in ipairs(redis.call('ZRANGE', lock, 0, MANY - 1)) do
    if string.sub(member, 1, 4) ~= 'lk1:' then return true end
  end
  return false
end

local function hold_back() end

local function hold_nobody_back() end

-- Nor does anybody upgrade.
local function last_waits_to_write() end

-- The names of the owner's permits from that one to that one.
local function members(owner, first, last)
  local names = {}
  for at = first, last do
    names[#names + 1] = at == 1 and owner or string.format('%s#%.0f', owner, at)
  end
  return names
end

local function put(owner, take, ends)
  for first = 1, take, MANY do
    local args = {}
    for _, member in ipairs(members(owner, first, math.min(take, first + MANY - 1))) do
      args[#args + 1] = ends
      args[#args + 1] = member
    end
    redis.call('ZADD', lock, unpack(args))
  end
end

local function live_at_least(lease)
  if redis.call('PTTL', lock) < tonumber(lease) then redis.call('PEXPIRE', lock, lease) end
end

-- Gives what is wanted, for which there is room. The key's life is as long as the .NET library's.
local function let_in(owner, lease, mode)
  local _, take = numbers(mode)
  put(owner, take, now + lease)
  live_at_least(3 * lease)
end

-- Begins the lease anew, if the owner has all its permits. First what needs no memory: a server
-- that has none left lets a script go on that has begun.
local function extend(owner, lease, mode)
  local _, take = numbers(mode)
  for at = 1, take do
    if not redis.call('ZSCORE', lock, members(owner, at, at)[1]) then return false end
  end
  redis.call('PEXPIRE', lock, math.max(redis.call('PTTL', lock), 3 * lease))
  put(owner, take, now + lease)
  return true
end

-- Takes back the owner's permits: as many as it took, or all in a row where that is not known.
-- Returns whether all were there.
local function let_go(owner, mode)
  local removed, take = 0, nil
  if mode and mode ~= '' then
    take = select(2, numbers(mode))
    for first = 1, take, MANY do
      local names = members(owner, first, math.min(take, first + MANY - 1))
      removed = removed + redis.call('ZREM', lock, unpack(names))
    end
  else
    while redis.call('ZREM', lock, members(owner, removed + 1, removed + 1)[1]) == 1 do
      removed = removed + 1
    end
  end
  return removed > 0 and removed == (take or removed)
end

-- Says, as a remaining time, what stands in the semaphore's place that is none.
local function no_lock()
  local count = redis.pcall('ZCARD', lock)
  if type(count) == 'number' then return redis.call('PTTL', lock) == -1 and -1 end
  if not string.find(count.err, 'WRONGTYPE', 1, true) then error(count) end
  return type(redis.pcall('GET', lock)) == 'string' and -5 or -3
end

-- The time until the first permit ends, and whose it is; nil if none is out. For whoever comes next,
-- a foreign holder is the one that counts.
local function held_by(comes_next)
  local first = redis.call('ZRANGE', lock, 0, 0, 'WITHSCORES')
  if first[1] then
    local holder = comes_next and has_foreign() and '' or first[1]
    return math.floor(first[2]) - now, holder
  end
end

-- Tells a new grant from one that was long on its way. It is the clock's, and no fencing token: of
-- several holders at once, none is stale.
local function new_number()
  return clock(), 1
end

local function last_number()
  return clock()
end

