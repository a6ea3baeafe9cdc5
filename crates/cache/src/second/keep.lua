-- Keeps a value, unless something was forgotten since `seen`, or the tenant's quota has no room.
-- KEYS: mark of the tenant, mark of the resource, value, ends of the tenant's values, their sizes (the sum under '')
-- ARGV: the first three as seen before the load, new marks in case there are none, value without marks, time to live (ms), quota, a mark's life (ms)
local mark_t, mark_r, there = redis.call('GET', KEYS[1]) or '', redis.call('GET', KEYS[2]) or '', redis.call('GET', KEYS[3]) or ''
-- The sign that something was forgotten ends by itself, long after the last load that began before it.
local ended = there == '' and string.sub(ARGV[3], 1, 1) == 'T'
if mark_t ~= ARGV[1] or mark_r ~= ARGV[2] or not (there == ARGV[3] or ended) then return 'outdated' end

local size = #ARGV[6] + #KEYS[3] + 200
local quota = tonumber(ARGV[8])
if size > quota then return 'no_room' end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function drop(key)
  redis.call('ZREM', KEYS[4], key)
  local had = redis.call('HGET', KEYS[5], key)
  if had then
    redis.call('HDEL', KEYS[5], key)
    redis.call('HINCRBY', KEYS[5], '', -had)
  end
end
drop(KEYS[3])
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 32)) do drop(key) end
-- Who would end first gives way.
local used = tonumber(redis.call('HGET', KEYS[5], '') or '0')
for _ = 1, 32 do
  if used + size <= quota then break end
  local first = redis.call('ZRANGE', KEYS[4], 0, 0)[1]
  if not first then break end
  redis.call('UNLINK', first)
  drop(first)
  used = tonumber(redis.call('HGET', KEYS[5], '') or '0')
end
if used + size > quota then return 'no_room' end

if mark_t == '' then mark_t = ARGV[4] end
if mark_r == '' then mark_r = ARGV[5] end
redis.call('SET', KEYS[1], mark_t, 'PX', ARGV[9])
redis.call('SET', KEYS[2], mark_r, 'PX', ARGV[9])
redis.call('SET', KEYS[3], 'V' .. mark_t .. mark_r .. ARGV[6], 'PX', ARGV[7])
redis.call('ZADD', KEYS[4], now + ARGV[7], KEYS[3])
redis.call('HSET', KEYS[5], KEYS[3], size)
redis.call('HINCRBY', KEYS[5], '', size)
redis.call('PEXPIRE', KEYS[4], ARGV[9])
redis.call('PEXPIRE', KEYS[5], ARGV[9])
return 'kept'
