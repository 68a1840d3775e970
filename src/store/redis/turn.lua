-- Takes the turn to look after the records, or keeps it.
-- KEYS[1] whose turn it is. ARGV[1] who asks; [2] ms for which it is theirs. Answers whether it is.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
