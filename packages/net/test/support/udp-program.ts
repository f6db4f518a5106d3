/** UDP in a namespace: `echo ADDRESS PORT` answers and prints who asked, `ask ADDRESS PORT` asks once and prints the answer or what went wrong. */
import dgram from 'node:dgram';

const [mode, first = '', second = ''] = process.argv.slice(2);
const socket = dgram.createSocket('udp4');
if (mode === 'echo') {
  socket.on('message', (message, remote) => {
    process.stdout.write(`from ${remote.address}\n`);
    socket.send(`<${message}>`, remote.port, remote.address);
  });
  socket.bind(Number(second), first, () => process.stdout.write('ready\n'));
  process.stdin.on('end', () => socket.close()).resume();
} else {
  socket.on('message', (message) => {
    process.stdout.write(`${message}\n`);
    socket.close();
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    process.stdout.write(`${error.code}\n`);
    socket.close();
  });
  socket.connect(Number(second), first, () => socket.send('hello'));
}
