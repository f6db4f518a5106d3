export { SysError } from './errors.ts';
export { faultPoint } from './fault-point.ts';
export { closeFd, FDS_PER_MESSAGE_MAX, type Received, receiveFds, sendFds, socketFd } from './fd-passing.ts';
export { FileLock, type LockHolder, type LockResult } from './file-lock.ts';
export {
  copySparse,
  dropCleanFilePages,
  type MemoryRange,
  memfdCreate,
  READ_RANGES_MAX,
  readProcessMemory,
  trimFreedMemory,
} from './memory.ts';
export { eventFd, PacketBuffers, Poller } from './packet-io.ts';
export { openDatagramSocket, openPingSocket, openRawPingSocket, replaceFd } from './ping-socket.ts';
export { PidFd, processStartTime } from './process.ts';
export { connectLoopback } from './tcp-socket.ts';
export { configureInterface, type InterfaceOptions, TunDevice, type TunOptions } from './tun.ts';
