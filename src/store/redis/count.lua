-- Adds to the number of a record's replays, which stands after its version and changes nothing else.
-- KEYS[1] the record. ARGV[1] how many more.
local held = redis.call('GETRANGE', KEYS[1], 16, 19)
if #held < 4 then
  return 0
end
local count = math.min(struct.unpack('>I4', held) + ARGV[1], 4294967295)
redis.call('SETRANGE', KEYS[1], 16, struct.pack('>I4', count))
return count
