-- Notes in a bucket's index what was told of a record, if the record is still as it was seen.
-- KEYS[1] the record, KEYS[2] its bucket's index. ARGV[1] the version seen, empty for none; [2] the record's id;
-- [3] what was told. A record that is gone leaves the index.
if redis.call('GETRANGE', KEYS[1], 0, 15) ~= ARGV[1] then
  return 0
end
if ARGV[1] == '' then
  return redis.call('ZREM', KEYS[2], ARGV[2])
end
return redis.call('ZADD', KEYS[2], 'XX', 'CH', ARGV[3], ARGV[2])
