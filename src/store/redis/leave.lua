-- Leaves a text for the other replicas.
-- KEYS[1] where. ARGV[1] the text; [2] ms for which it is good.
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
