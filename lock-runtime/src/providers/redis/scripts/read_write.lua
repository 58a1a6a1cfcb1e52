-- A reader–writer lock. KEYS: the writer, the waiters, the fencing counter, the readers, the ends of
-- those that are ours, the one that may upgrade.
--
-- The writer and the readers are where the .NET library has them, and what it does with them
-- excludes us. All its readers end together. Ours have ends of their own, so that one that crashed
-- does not live on by the renewals of others.

local readers, ends, upgrading = KEYS[4], KEYS[5], KEYS[6]
local now = math.floor(clock() / 1000)

-- What the writer's key holds while its owner only waits: it keeps the .NET library's readers out.
local MARK = '_WRITERWAITING'
-- The same while a reader waits to become the writer, before everybody who waits: all are kept out.
local UPGRADE = '_UPGRADEWAITING'
-- The ends must outlive the readers that they explain, or these would pass for foreign.
local DAY = 86400000

-- An entry of the queue: r|, u| or w|, and then as for every lock.
local function parts(entry)
  local mode, owner, channel, lease, tokens, expires =
    string.match(entry, '^([ruw])|([^|]+)|(.*)|(%d+)|(%d+)|(%d+)$')
  return owner, channel, lease, tokens, expires, mode
end

-- Drops the readers of ours that have ended, for everybody. Returns whether there were any.
local function purge()
  local any = false
  while true do
    local ended = redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 1000)
    if #ended == 0 then return any end
    redis.call('SREM', readers, unpack(ended))
    redis.call('ZREM', ends, unpack(ended))
    any = true
  end
end

-- The reader that may upgrade, and how often it has begun to. If it waits for that, by which owner it
-- will write, and the channel of that. Nothing if there is no such reader.
local function upgrader()
  local value = redis.pcall('GET', upgrading)
  if type(value) ~= 'string' then return nil end
  local owner, begun, writer, channel = string.match(value, '^([^|]+)|(%d+)|([^|]*)|(.*)$')
  if owner and type(redis.pcall('ZSCORE', ends, owner)) == 'string' then
    return owner, begun, writer, channel
  end
end

-- Says whether somebody writes, or waits for that whom we hand nothing: a foreign writer. What
-- stands there and is no string is taken for one, since a release must not fail half-way.
local function is_closed()
  local writer = redis.pcall('GET', lock)
  if not writer then return false end
  return type(writer) ~= 'string' or string.sub(writer, 1, 4) ~= 'lk1:'
    or string.sub(writer, -#MARK) ~= MARK
end

-- Says whether whoever comes first in this mode may enter a lock that is not closed.
local function has_room(mode)
  if mode == 'u' then return not upgrader() end
  return mode == 'r' or redis.call('SCARD', readers) == 0
end

local function has_foreign()
  return redis.call('SCARD', readers) > redis.call('ZCARD', ends)
end

-- Nobody waits, or a reader comes first: a mark of ours is over.
local function hold_nobody_back()
  if not is_closed() then redis.call('DEL', lock) end
end

-- The first in the queue has to wait, and its entry lasts so long: nobody comes before it. Only a
-- writer keeps the .NET library's readers out.
local function hold_back(owner, lasts, mode)
  if mode ~= 'w' then return hold_nobody_back() end
  redis.call('SET', lock, owner .. MARK, 'PX', string.format('%.0f', lasts))
end

-- Says who waits to become the writer, and for nobody any more, and on which channel.
local function last_waits_to_write()
  if redis.call('SCARD', readers) ~= 1 then return nil end
  local owner, _, writer, channel = upgrader()
  if owner and writer ~= '' then return writer, channel end
end

-- Gives the lock, which is not closed and has room.
local function let_in(owner, lease, mode)
  if mode == 'w' then
    redis.call('SET', lock, owner, 'PX', lease)
    return
  end
  hold_nobody_back()
  redis.call('SADD', readers, owner)
  if redis.call('PTTL', readers) < tonumber(lease) then
    redis.call('PEXPIRE', readers, lease)
  end
  redis.call('ZADD', ends, now + lease, owner)
  redis.call('PEXPIRE', ends, DAY)
  if mode == 'u' then redis.call('SET', upgrading, owner .. '|0||', 'PX', lease) end
end

-- Begins the lease anew, if the owner holds the lock. First what needs no memory: a server that has
-- none left lets a script go on that has begun.
local function extend(owner, lease, mode)
  if mode == 'w' then
    return redis.call('GET', lock) == owner and redis.call('PEXPIRE', lock, lease) == 1
  end
  if redis.call('SISMEMBER', readers, owner) == 0 or not redis.call('ZSCORE', ends, owner) then
    return false
  end
  if mode == 'u' and (upgrader() ~= owner or redis.call('PEXPIRE', upgrading, lease) == 0) then
    return false
  end
  redis.call('PEXPIRE', ends, DAY)
  if redis.call('PTTL', readers) < tonumber(lease) then
    redis.call('PEXPIRE', readers, lease)
  end
  redis.call('ZADD', ends, now + lease, owner)
  return true
end

-- Ends what the owner holds. Returns whether it held anything.
local function let_go(owner)
  if redis.pcall('GET', lock) == owner then
    redis.call('DEL', lock)
    return true
  end
  local may, _, writer = upgrader()
  if may == owner then
    redis.call('DEL', upgrading)
    if redis.pcall('GET', lock) == writer .. UPGRADE then redis.call('DEL', lock) end
  end
  local held = redis.call('SREM', readers, owner) == 1
  -- What is no set of ends knows of none. Without that answer the reader would stay.
  return redis.pcall('ZREM', ends, owner) == 1 and held
end

-- Says, as a remaining time, what stands in the lock's place that is no lock.
local function no_lock()
  return is_closed() and redis.call('PTTL', lock) == -1 and -1
end

-- The lock's remaining time, which is that of the first reader to end, and who has it; nil if
-- nobody does. The mode is that of whoever wants the lock.
local function held_by(_, mode)
  if is_closed() then
    local writer = redis.call('GET', lock)
    -- Somebody may keep a book there.
    return redis.call('PTTL', lock), string.sub(writer, 1, 128)
  end
  -- Plain readers are not in the way of one that may upgrade.
  local may = mode == 'u' and upgrader()
  if may then return redis.call('ZSCORE', ends, may) - now, may end
  if has_foreign() then
    local left = redis.call('PTTL', readers)
    return left < 0 and -2 or left, ''
  end
  -- Whoever waits looks at each end: those that end later may have left before.
  local first = redis.call('ZRANGE', ends, 0, 0, 'WITHSCORES')
  if first[1] then return first[2] - now, first[1] end
end

-- The tokens of a grant: of a reader's too, since a writer comes before it and after it.
local function new_number(tokens)
  return take_tokens(tonumber(tokens))
end

local function last_number()
  return read_counter(fence) or clock()
end

