local function take(at)
  local owner, lease, tokens = unpack(ARGV, 3 * at - 2, 3 * at)
  if took[at] == nil then took[at] = redis.pcall('SET', lock, owner, 'NX', 'PX', lease) end
  return take_or_wait(took[at], owner, lease, tokens, '')
end

fence = KEYS[1]
for at = free + 1, count do
  lock, waiters = KEYS[1 + at], KEYS[1 + count + at]
  -- One that fails must not take back the answers of those before.
  answers[at] = caught(take, at)
  -- What was taken is answered with its first token, and how many there are.
  if type(answers[at][1]) ~= 'number' then break end
end
return answers
