<?php
// Swoole in BASE mode: one process that does its own I/O. Prints its port when it listens.
$server = new Swoole\Server('127.0.0.1', 0, SWOOLE_BASE);
$server->set([
    'worker_num' => 1,
    'open_eof_check' => true,
    'open_eof_split' => true,
    'package_eof' => "\r\n",
    'package_max_length' => 2 * 1024 * 1024,
    'backlog' => 2048,
    'max_connection' => 11000,
    'log_level' => SWOOLE_LOG_WARNING,
]);
$server->on('workerStart', function (Swoole\Server $server) {
    // In BASE mode this comes when the worker has its loop, and the socket listens already.
    fwrite(STDOUT, $server->port . "\n");
    fflush(STDOUT);
});
$server->on('receive', function (Swoole\Server $server, int $fd, int $reactor, string $data) {
    $server->send($fd, "+PONG\r\n");
});
$server->start();
