"""The .tflite format: conversion, verification, storage, and the runtimes' properties."""
