-- Deletes what stands in a record's place and cannot be read, if it is still what was seen.
-- KEYS[1] the record, KEYS[2] its bucket's index. ARGV[1] the value seen; [2] the record's id. What is no string is no
-- record, whatever was seen.
local held = redis.pcall('GET', KEYS[1])
local is_string = type(held) ~= 'table'
if is_string and held ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
redis.pcall('ZREM', KEYS[2], ARGV[2])
return 1
