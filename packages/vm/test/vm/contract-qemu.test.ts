import { vmContract } from '../contract.ts';
import { QemuHarness } from './harness.ts';

vmContract('the QEMU driver', async () => new QemuHarness());
