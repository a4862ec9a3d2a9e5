-- What wrk counted, line by line, for the program that started it. Times in microseconds.
done = function(summary, latency)
  local errors = summary.errors
  print(string.format("wrk-counts %d %d %d %d %d %d", summary.requests, errors.connect, errors.read, errors.write,
    errors.status, errors.timeout))
  for i = 1, #latency do
    local value, count = latency(i)
    print(string.format("wrk-latency %d %d", value, count))
  end
end
