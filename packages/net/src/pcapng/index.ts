export {
  type CaptureInterface,
  type Direction,
  interfaceDescription,
  interfaceStatistics,
  LINK_TYPE_ETHERNET,
  LINK_TYPE_RAW,
  packet,
  sectionHeader,
} from './blocks.ts';
export {
  CAPTURE_QUEUE_BYTES_MAX,
  Capture,
  type CaptureOptions,
  SNAP_BYTES_DEFAULT,
  wallClockNs,
} from './capture.ts';
