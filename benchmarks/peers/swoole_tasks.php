<?php
// Tasks in Swoole's BASE mode: php swoole_tasks.php rate|latency WORKERS IN_FLIGHT SIZE WARM_UP AMOUNT
//
// Tasks give back what they got: SIZE bytes, or an integer if it is 0. After WARM_UP seconds of full
// load it prints "begin", and when it has measured "end" and what it found as JSON. `rate` goes on
// for AMOUNT seconds, with IN_FLIGHT tasks at a time: [tasks, seconds]. `latency` waits for AMOUNT
// tasks one by one: the seconds that each took.
[, $mode, $workers, $inFlight, $size, $warmUp, $amount] = $argv;
$payload = $size > 0 ? str_repeat("\0", (int) $size) : 1;
$finished = 0;

function tell(string $line): void
{
    fwrite(STDOUT, $line . "\n");
    fflush(STDOUT);
}

function rate(Swoole\Server $server): void
{
    global $payload, $finished, $inFlight, $warmUp, $amount;
    for ($i = 0; $i < (int) $inFlight; $i++) {
        $server->task($payload);
    }
    Swoole\Timer::after((int) ($warmUp * 1000), function () use ($server, $amount) {
        global $finished;
        tell('begin');
        $before = $finished;
        $began = hrtime(true);
        Swoole\Timer::after((int) ($amount * 1000), function () use ($server, $before, $began) {
            global $finished;
            tell('end ' . json_encode([$finished - $before, (hrtime(true) - $began) / 1e9]));
            $server->shutdown();
        });
    });
}

function latency(Swoole\Server $server): void
{
    global $payload, $amount;
    for ($i = 0; $i < 100; $i++) {
        $server->taskwait($payload, -1);
    }
    tell('begin');
    $seconds = [];
    for ($i = 0; $i < (int) $amount; $i++) {
        $began = hrtime(true);
        if ($server->taskwait($payload, -1) !== $payload) {
            exit(1);
        }
        $seconds[] = (hrtime(true) - $began) / 1e9;
    }
    tell('end ' . json_encode($seconds));
    $server->shutdown();
}

$server = new Swoole\Server('127.0.0.1', 0, SWOOLE_BASE);
$server->set([
    'worker_num' => 1,
    'task_worker_num' => (int) $workers,
    // taskwait then blocks the worker, which is the shortest way that Swoole has.
    'enable_coroutine' => false,
    'log_level' => SWOOLE_LOG_WARNING,
]);
$server->on('workerStart', function (Swoole\Server $server) use ($mode) {
    if (!$server->taskworker) {
        // When the task workers have started.
        Swoole\Timer::after(500, fn () => $mode($server));
    }
});
$server->on('receive', function () {
});
$server->on('task', fn (Swoole\Server $server, int $id, int $source, mixed $data) => $data);
$server->on('finish', function (Swoole\Server $server) use (&$finished, $mode, $payload) {
    $finished++;
    if ($mode === 'rate') {
        $server->task($payload);
    }
});
$server->start();
