-- The store's one atomic step: write if the version is still the one that the caller saw.
-- KEYS[1] the record, KEYS[2] its bucket's index of records that are not settled.
-- ARGV[1] the version expected, empty for none; [2] the value to write, empty to free the key; [3] ms to keep it;
-- ARGV[4] the record's id; [5] whether the index names it afterwards. A value begins with its version, 16 bytes.
local held = redis.call('GET', KEYS[1])
local seen = held and held:sub(1, 16)
local mine = #ARGV[2] > 0 and ARGV[2]:sub(1, 16)
if mine and seen == mine then
  -- Written before. Only the same end once more: a write, so that WAIT says which replicas have what came before it.
  local left = redis.call('PTTL', KEYS[1])
  if left > 0 then
    redis.call('PEXPIRE', KEYS[1], left)
  end
  return 1
end
if seen == (#ARGV[1] > 0 and ARGV[1]) then
  -- The index helps operators: what somebody put in its place is no reason to refuse. But who may not write to it at all
  -- would never find what is lost.
  if ARGV[5] == '1' then
    local noted = redis.pcall('ZADD', KEYS[2], 0, ARGV[4])
    if type(noted) == 'table' and noted.err and not noted.err:find('WRONGTYPE', 1, true) then
      return noted
    end
  end
  if mine then
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  else
    redis.call('DEL', KEYS[1])
  end
  if ARGV[5] ~= '1' then
    redis.pcall('ZREM', KEYS[2], ARGV[4])
  end
  return 1
end
-- A write that changes nothing. A server that has become a replica refuses it, and is not read (S-7).
local refused = redis.pcall('ZREM', KEYS[2], '')
if type(refused) == 'table' and refused.err and refused.err:find('READONLY', 1, true) then
  return refused
end
return held and { held, redis.call('PTTL', KEYS[1]) }
