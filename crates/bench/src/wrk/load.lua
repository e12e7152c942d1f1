-- What wrk sends. No callback for responses: it would cost more than the request. Arguments:
--
--   PAUSE_MS orders RUN           new orders, each with a key of its own
--   PAUSE_MS repeats RUN COUNT    orders that were placed before: those of the run, with keys 0 to COUNT - 1
--   PAUSE_MS get                  the URL as it is
--
-- PAUSE_MS is from one request of a thread to its next, whatever the connection; 0: as many requests as come back.
local ffi = require("ffi")
ffi.cdef "typedef struct { long s; long us; } bench_time; int gettimeofday(bench_time *, void *);"
local clock = ffi.new("bench_time")
local function now_ms()
    ffi.C.gettimeofday(clock, nil)
    return tonumber(clock.s) * 1000 + tonumber(clock.us) / 1000
end

local threads = 0
function setup(thread)
    thread:set("number", threads)
    threads = threads + 1
end

local HEAD = "PUT /buy_order HTTP/1.1\r\nHost: %s:%s\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
local BEFORE_KEY = '{"currency":"USD","amount":"0.01","idempotence_key":"'
local AFTER_KEY = '"}'
local KEY_LENGTH = 36
local MOST_LATE_MS = 50

-- Random in front, as the keys of clients are, so that an index meets them as it would in earnest; unique by what follows.
local function new_order_key(run)
    local count = 0
    return function()
        count = count + 1
        return string.format("%08x-%04x-4000-8%03x-%04x%08x", math.random(0, 0x7fffffff), math.random(0, 0xffff), number, run, count)
    end
end

local function repeated_key(run, keys)
    return function() return string.format("%08x-0000-4000-8000-%012x", run, math.random(0, keys - 1)) end
end

function init(arguments)
    local pause_ms, mode, run, keys = tonumber(arguments[1]), arguments[2], tonumber(arguments[3] or 0, 16), tonumber(arguments[4] or 0)
    math.randomseed(now_ms() % 2147483648 + number * 7919)
    if mode ~= "get" then
        local key = mode == "orders" and new_order_key(run) or repeated_key(run, keys)
        local token = wrk.headers["Authorization"]
        token = token and "Authorization: " .. token .. "\r\n" or ""
        local head = HEAD:format(wrk.host, wrk.port, token, #BEFORE_KEY + KEY_LENGTH + #AFTER_KEY) .. BEFORE_KEY
        request = function() return head .. key() .. AFTER_KEY end
    end
    if pause_ms > 0 then
        -- A thread that is late makes up for it, else a busy machine would not get the rate; but not for all of a long standstill.
        local due = now_ms()
        delay = function()
            local now = now_ms()
            due = math.max(due + pause_ms, now - MOST_LATE_MS)
            return math.max(0, due - now)
        end
    end
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '\n{"requests":%d,"bytes":%.0f,"duration_us":%d,"p50_us":%.0f,"p99_us":%.0f,"p999_us":%.0f,"errors":{"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d}}\n',
        summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
        errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
