-- What wrk sends, by the arguments after "--": "upload", "close", "cookie=NAME=VALUE". The result in one line for the harness.
function init(args)
    for _, arg in ipairs(args) do
        if arg == "upload" then
            wrk.method = "POST"
            wrk.body = string.rep("x", 65536)
        elseif arg == "close" then
            wrk.headers["Connection"] = "close"
        elseif arg:sub(1, 7) == "cookie=" then
            wrk.headers["Cookie"] = arg:sub(8)
        end
    end
end

function done(summary, latency, _)
    local e = summary.errors
    io.write(string.format("RESULT %d %d %d %d %d %d %d %d\n", summary.requests, e.connect, e.read, e.write, e.status,
        e.timeout, latency:percentile(50), latency:percentile(99)))
end
