"""Tests of filters that were written for classes split by device."""

import unittest

from ao.sparsity.testing.filters import as_here


class TestAsHere(unittest.TestCase):
    def test_classes_by_device_lose_their_device(self):
        """With and without a type of device, alone, beside others, and with the suffixes of a test."""
        for pattern, expected in (
            ("*TestFPGMPrunerDevice*", "*TestFPGMPruner*"),
            ("TestFPGMPrunerDeviceCPU", "TestFPGMPruner"),
            ("*TestFPGMPrunerDevicePRIVATEUSE1*", "*TestFPGMPruner*"),
            ("TestFPGMPrunerDeviceTypeXPU", "TestFPGMPruner"),
            ("TestFPGMPrunerCUDA", "TestFPGMPruner"),
            ("FPGMPrunerDevice", "FPGMPruner"),
            ("*TestFPGMPrunerDeviceCPU.test_update_mask_cpu*", "*TestFPGMPruner.test_update_mask*"),
            ("TestFPGMPrunerDeviceCUDA.test_update_mask_cuda_float32", "TestFPGMPruner.test_update_mask"),
            ("TestSchedulerDevice and not TestFPGMPrunerDevice", "TestScheduler and not TestFPGMPruner"),
        ):
            with self.subTest(pattern=pattern):
                self.assertEqual(as_here(pattern), expected)

    def test_classes_lose_the_module_of_the_program(self):
        """As torch's lists of disabled tests write them."""
        self.assertEqual(as_here("*__main__.TestFPGMPruner.test_step*"), "*TestFPGMPruner.test_step*")

    def test_other_words_stay(self):
        """Words that only speak of devices, and names of this suite, are filters as they are."""
        for pattern in ("*TestFPGMPruner*", "device", "*Device*", "CPU", "test_stays_on_cpu", "TestDevices", "device_accelerator", ""):
            with self.subTest(pattern=pattern):
                self.assertEqual(as_here(pattern), pattern)


if __name__ == "__main__":
    unittest.main()
