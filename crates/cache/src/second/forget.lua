-- Forgets one value, and leaves a sign for loads that began before.
-- KEYS: value, ends, sizes; ARGV: the sign, its life (ms)
local had = redis.call('HGET', KEYS[3], KEYS[1])
if had then
  redis.call('HDEL', KEYS[3], KEYS[1])
  redis.call('HINCRBY', KEYS[3], '', -had)
end
redis.call('ZREM', KEYS[2], KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
