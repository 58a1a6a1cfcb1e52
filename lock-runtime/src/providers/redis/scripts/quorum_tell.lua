-- Makes a token known, if the owner has this server's vote: no later vote has one up to it.
-- KEYS: the lock, its waiters, the fencing counter. ARGV: owner, token. Answers 1, or 0.
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if (read_counter(KEYS[3]) or 0) < tonumber(ARGV[2]) then
  redis.call('SET', KEYS[3], ARGV[2], 'PX', 691200000)
end
return 1
