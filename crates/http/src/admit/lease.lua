-- One round of sharing limits (lease.rs). The arithmetic of pots is that of planner::pot, in microseconds; a test holds the two together.
-- KEYS: peers (sorted set by last word), hot meters (sorted set by last claim), pots (hash: meter -> "full_at interval").
-- ARGV: own id, microseconds for which a silent peer counts, for which a meter stays hot, that a pot holds, after which a peer is silent,
--       for which a fresh pot gives nothing;
--       n, then n times (meter, units spent); m, then m times (meter, interval, burst, units wanted).
-- Answers: peers, granted units in the order of the claims, hot meters.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))

local cold = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[3]), 'LIMIT', 0, 1000)
for _, meter in ipairs(cold) do
    redis.call('ZREM', KEYS[2], meter)
    redis.call('HDEL', KEYS[3], meter)
end

-- What silent peers may be using is not in the pots: these refill more slowly.
local peers = redis.call('ZCARD', KEYS[1])
local heard = redis.call('ZCOUNT', KEYS[1], now - tonumber(ARGV[5]), '+inf')
local slower = peers / heard

local function pot(meter)
    local kept = redis.call('HGET', KEYS[3], meter)
    if not kept then return nil end
    local full_at, interval = string.match(kept, '^(%S+) (%S+)$')
    return math.max(tonumber(full_at), now), tonumber(interval) * slower
end

local function keep(meter, full_at, interval)
    redis.call('HSET', KEYS[3], meter, string.format('%.3f %.6f', full_at, interval))
end

local at = 7
for _ = 1, tonumber(ARGV[at]) do
    local meter, units = ARGV[at + 1], tonumber(ARGV[at + 2])
    local full_at, interval = pot(meter)
    -- Nobody claims it any more: nobody need know.
    if full_at then keep(meter, full_at + interval * units, interval / slower) end
    at = at + 2
end

at = at + 1
local granted = {}
for n = 1, tonumber(ARGV[at]) do
    local meter, interval = ARGV[at + 1], tonumber(ARGV[at + 2]) * slower
    local burst, wanted = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
    local capacity = math.max(1, math.min(burst, math.floor(tonumber(ARGV[4]) / interval)))
    -- A fresh pot is empty, or claiming now and then would be a gift each time.
    local full_at = pot(meter) or now + interval * capacity + tonumber(ARGV[6])
    local room = math.max(0, math.floor((now + interval * capacity - full_at) / interval))
    granted[n] = math.min(room, wanted)
    keep(meter, full_at + interval * granted[n], interval / slower)
    redis.call('ZADD', KEYS[2], now, meter)
    at = at + 4
end

-- Should every peer go, nothing is left for long.
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, 600000) end
return { peers, granted, redis.call('ZREVRANGE', KEYS[2], 0, 9999) }
