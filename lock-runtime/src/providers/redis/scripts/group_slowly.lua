-- One that fails must not take the others with it: what is done for them stands.
local function done_slowly(at)
  if at <= releases then
    if redis.pcall('GET', lock) ~= ARGV[owners + at] then return 0 end
    give_up(ARGV[owners + at])
    return 1
  end
  local argument = owners + 2 * at - releases - 1
  local passed = at - releases - takes
  if passed > 0 then
    argument = argument + passed - 1
    if redis.pcall('GET', lock) == ARGV[argument + 2] then give_up(ARGV[argument + 2]) end
  end
  local owner, form = ARGV[argument], 2 + 3 * ARGV[argument + 1]
  local lease, tokens, channel = ARGV[form], ARGV[form + 1], ARGV[form + 2]
  if not took[at] then took[at] = redis.pcall('SET', lock, owner, 'NX', 'PX', lease) end
  return take_or_wait(took[at], owner, lease, tokens, channel)
end

fence = KEYS[1]
for at = releases + takes + 1, count do slow[#slow + 1] = at end
for _, at in ipairs(slow) do
  lock, waiters = KEYS[1 + at], KEYS[1 + count + at]
  answers[1 + at] = caught(done_slowly, at)
end
return answers
